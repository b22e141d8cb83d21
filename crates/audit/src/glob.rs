//! Path patterns: `*` and `?` within one component, `**` as a component of its own for any number of components, none
//! included. Everything else means itself. Bytes, not characters: names in a layer need not be UTF-8.

/// A pattern of absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`.
    Any,
    Literal(Vec<u8>),
    Wild(Vec<u8>),
}

impl Glob {
    /// Reads a pattern. `Err`: what is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("{text:?} does not begin with / (for any directory write /**/ before it)"));
        };
        let part = |name: &str| match name {
            "" => Err(format!("{text:?} has an empty component")),
            "." | ".." => Err(format!("{text:?} has a component {name:?}, which no path in a layer has")),
            "**" => Ok(Part::Any),
            name if name.contains("**") => {
                Err(format!("{text:?}: ** must be a component of its own, as in /var/**/x"))
            }
            name if name.contains(['*', '?']) => Ok(Part::Wild(name.as_bytes().to_vec())),
            name => Ok(Part::Literal(name.as_bytes().to_vec())),
        };
        Ok(Self { parts: rest.split('/').map(part).collect::<Result<_, _>>()? })
    }

    /// Whether the path matches. The path is absolute, without `.`, `..` and doubled slashes.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        parts_match(&self.parts, path)
    }

    /// The first component, if it means itself: what an index can be made of.
    pub(crate) fn first(&self) -> Option<&[u8]> {
        match self.parts.first() {
            Some(Part::Literal(name)) => Some(name),
            _ => None,
        }
    }

    /// The directories before the first wildcard: `/var/cache` of `/var/cache/**`. Without a wildcard, the directory that
    /// the path is in.
    pub(crate) fn root(&self) -> String {
        let literal = |part: &Part| match part {
            Part::Literal(name) => Some(format!("/{}", String::from_utf8_lossy(name))),
            _ => None,
        };
        let before_last = self.parts.len().saturating_sub(1);
        let root: String = self.parts.iter().take(before_last).map_while(literal).collect();
        if root.is_empty() { "/".to_owned() } else { root }
    }
}

/// The text before the first slash, and what comes after it.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// Only the last `**` seen needs to be tried again: an earlier one could gain nothing by taking more.
fn parts_match(parts: &[Part], path: &[u8]) -> bool {
    let (mut parts, mut rest) = (parts, Some(path).filter(|path| !path.is_empty()));
    let mut again: Option<(&[Part], &[u8])> = None;
    loop {
        let fits = match (parts.split_first(), rest) {
            (None, None) => return true,
            (Some((Part::Any, after)), _) => {
                // At the end it takes all there is.
                if after.is_empty() {
                    return true;
                }
                again = rest.map(|rest| (after, rest));
                parts = after;
                continue;
            }
            (Some((part, after)), Some(path)) => {
                let (name, more) = split(path);
                let same = match part {
                    Part::Literal(literal) => literal == name,
                    Part::Wild(wild) => wildcard(wild, name),
                    Part::Any => true,
                };
                if same {
                    (parts, rest) = (after, more);
                }
                same
            }
            _ => false,
        };
        if !fits {
            let Some((after, from)) = again else { return false };
            let (_, Some(more)) = split(from) else { return false };
            (parts, rest, again) = (after, Some(more), Some((after, more)));
        }
    }
}

/// Whether a text matches a pattern of `*`, `?` and characters that mean themselves.
pub(crate) fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                again = Some((at + 1, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((star, taken)) = again else { return false };
                again = Some((star, taken + 1));
                (at, from) = (star, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::new(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn examples() {
        let yes = [
            ("/tmp/**", "/tmp/a"),
            ("/tmp/**", "/tmp/a/b/c"),
            ("/tmp/**", "/tmp"),
            ("/**/__pycache__/**", "/__pycache__/x"),
            ("/**/__pycache__/**", "/usr/lib/__pycache__/x.pyc"),
            ("/run/*.pid", "/run/a.pid"),
            ("/**/*.pid", "/a.pid"),
            ("/a/**/b/**/c", "/a/b/x/b/y/c"),
            ("/a?c", "/abc"),
            ("/**", "/anything/at/all"),
            ("/*/x*y*z", "/q/x--y--z"),
        ];
        let no = [
            ("/tmp/**", "/tmpx"),
            ("/run/*.pid", "/run/x/a.pid"),
            ("/run/*.pid", "/run/a.pid/b"),
            ("/a/**/b", "/a/c"),
            ("/a", "/a/b"),
            ("/a/b", "/a"),
            ("/a?c", "/a/c"),
            ("/*/b", "/b"),
        ];
        for (pattern, path) in yes {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in no {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        for bad in ["tmp", "", "/", "/a//b", "/a/", "/a/../b", "/a**", "/x/**y"] {
            assert!(Glob::new(bad).unwrap_err().contains(&format!("{bad:?}")), "{bad}");
        }
    }

    #[test]
    fn the_root_is_what_comes_before_the_wildcards() {
        let root = |pattern: &str| Glob::new(pattern).unwrap().root();
        assert_eq!(root("/var/cache/**"), "/var/cache");
        assert_eq!(root("/run/*.pid"), "/run");
        assert_eq!(root("/etc/mtab"), "/etc");
        assert_eq!(root("/**/x/y"), "/");
    }

    /// The definition, word by word; takes exponential time.
    fn naive(parts: &[Part], names: &[&[u8]]) -> bool {
        match (parts.split_first(), names.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((Part::Any, after)), _) => (0..=names.len()).any(|skip| naive(after, &names[skip..])),
            (Some(_), None) => false,
            (Some((part, after)), Some((name, more))) => {
                let one = match part {
                    Part::Literal(literal) => literal == name,
                    Part::Wild(wild) => naive_wildcard(wild, name),
                    Part::Any => unreachable!(),
                };
                one && naive(after, more)
            }
        }
    }

    fn naive_wildcard(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', after)) => (0..=text.len()).any(|skip| naive_wildcard(after, &text[skip..])),
            Some((byte, after)) => {
                text.first().is_some_and(|first| *byte == b'?' || byte == first)
                    && naive_wildcard(after, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(
            parts in prop::collection::vec("\\*\\*|[ab*?]{1,4}", 1..5),
            names in prop::collection::vec("[ab]{1,4}", 1..6),
        ) {
            prop_assume!(parts.iter().all(|part| part == "**" || !part.contains("**")));
            let glob = Glob::new(&format!("/{}", parts.join("/"))).unwrap();
            let path = format!("/{}", names.join("/"));
            let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            prop_assert_eq!(glob.matches(path.as_bytes()), naive(&glob.parts, &names), "{:?} {}", parts, path);
        }
    }
}
