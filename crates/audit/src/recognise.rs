//! Which services a container runs, and where each keeps its data.

use crate::facts::Container;
use crate::glob::wildcard;
use crate::rules::{PersistentIf, Rules, Service};
use crate::tally::is_below;
use std::collections::BTreeSet;

/// The image or a label: whoever made it says so.
const SURE: u32 = 8;
/// A process, the command, or a data directory in its place: enough, unless an image says something else.
const STRONG: u32 = 4;
/// A `VOLUME` where only this service has its data, or data there in the layer; while nobody can see what runs. Enough with a port
/// or a variable.
const PLACE: u32 = 3;
/// A port or a variable. Images made from another inherit both, so even all of these together are not enough: they only
/// choose among services that have a better sign.
const WEAK: u32 = 1;

/// A service that a container runs.
#[derive(Debug, Clone)]
pub(crate) struct Recognised<'a> {
    pub service: &'a Service,
    /// The directories with its data. Empty if it keeps none.
    pub data: Vec<String>,
    /// What said so, if it was not the service's default: `PGDATA=/x`.
    pub told: Option<String>,
}

/// An image reference: `docker.io/library/postgres:16@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName<'a> {
    /// Without registry, tag and digest.
    pub path: &'a str,
    pub tag: Option<&'a str>,
    pub digest: bool,
}

impl<'a> ImageName<'a> {
    pub(crate) fn new(image: &'a str) -> Self {
        let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let colon = name[slash..].find(':').map(|at| slash + at);
        let (name, tag) = colon.map_or((name, None), |at| (&name[..at], Some(&name[at + 1..])));
        let path = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
            _ => name,
        };
        Self { path, tag, digest }
    }

    /// Whether the last components are those of the pattern.
    fn is(&self, pattern: &str) -> bool {
        let (mut path, mut parts) = (self.path.rsplit('/'), pattern.rsplit('/'));
        parts.all(|part| path.next().is_some_and(|name| wildcard(part.as_bytes(), name.as_bytes())))
    }

    /// Whether the next `docker pull` may bring any version at all.
    pub(crate) fn moves(&self) -> bool {
        !self.digest && self.tag.is_none_or(|tag| tag == "latest")
    }
}

/// The services that a container runs. An image says it best: if one matches, it is the only service; otherwise every
/// service with enough signs is one.
pub(crate) fn recognise<'a>(container: &Container, rules: &'a Rules) -> Vec<Recognised<'a>> {
    let arguments = arguments(&container.command);
    let scored: Vec<(u32, &Service)> = rules
        .services
        .iter()
        .map(|service| (score(container, &arguments, service), service))
        .filter(|(score, _)| *score >= STRONG)
        .collect();
    let best = scored.iter().map(|(score, _)| *score).max().unwrap_or(0);
    let chosen: Vec<&Service> = if best >= SURE {
        scored.iter().find(|(score, _)| *score == best).map(|(_, service)| *service).into_iter().collect()
    } else {
        scored.into_iter().map(|(_, service)| service).collect()
    };
    chosen.into_iter().map(|service| placed(container, &arguments, service)).collect()
}

fn score(container: &Container, arguments: &[String], service: &Service) -> u32 {
    let image = ImageName::new(&container.image);
    let mut score = 0;
    if service.images.iter().any(|pattern| image.is(pattern)) {
        score += SURE;
    }
    let labelled = |pair: &String| matches_pair(pair, |key| container.labels.get(key).map(String::as_str));
    if service.labels.iter().any(labelled) {
        score += SURE;
    }
    let is_process =
        |name: &str| service.processes.iter().any(|known| wildcard(known.as_bytes(), name.as_bytes()));
    if container.processes.iter().any(|name| is_process(name)) || program(arguments).is_some_and(is_process) {
        score += STRONG;
    }
    if container.exposed_ports.iter().any(|port| service.ports.contains(port)) {
        score += WEAK;
    }
    if service.env.iter().any(|name| container.env.contains_key(name)) {
        score += WEAK;
    }
    let seen = !container.processes.is_empty();
    let place = if !seen && has_place(container, service) { PLACE } else { 0 };
    score + place.max(signature(container, service))
}

/// Whether the container has a place for the service's data: one that the image declares, or that it was written to. What lies
/// directly below the root (`/data`) may be anybody's.
fn has_place(container: &Container, service: &Service) -> bool {
    let own = |path: &&String| path.matches('/').count() > 1;
    let written = |path: &str| {
        let below = container.layer.as_ref().map(|layer| layer.below(path));
        below.is_ok_and(|below| below.matter.bytes > 0)
    };
    service.data.iter().filter(own).any(|path| {
        container.declared_volumes.iter().any(|declared| tidy(declared) == *path) || written(path)
    })
}

/// The program that a command runs in the end, without what only starts it.
fn program(arguments: &[String]) -> Option<&str> {
    let starts = |name: &str| {
        let known = [
            "tini",
            "dumb-init",
            "gosu",
            "su-exec",
            "setpriv",
            "env",
            "exec",
            "sh",
            "bash",
            "ash",
            "catatonit",
        ];
        name.starts_with('-') || name.contains("entrypoint") || known.contains(&name)
    };
    let names = arguments.iter().map(|word| word.rsplit('/').next().unwrap_or(word));
    names.into_iter().find(|name| !starts(name))
}

/// A data directory mounted where the service has it is a strong sign; elsewhere it is a backup's view of it.
fn signature(container: &Container, service: &Service) -> u32 {
    let signed = container.mounts.iter().filter(|mount| {
        mount.content.as_ref().is_some_and(|content| has_signature(&content.signatures, service))
    });
    let at_home = |destination: &str| {
        let places = service.data.iter().chain(&service.also);
        places.into_iter().any(|place| is_below(place, destination) || is_below(destination, place))
    };
    signed.map(|mount| if at_home(&mount.destination) { STRONG } else { 0 }).max().unwrap_or(0)
}

/// Whether these names are those of the service's data directory.
pub(crate) fn has_signature(names: &[String], service: &Service) -> bool {
    service
        .signatures
        .iter()
        .any(|known| names.iter().any(|name| wildcard(known.as_bytes(), name.as_bytes())))
}

fn placed<'a>(container: &Container, arguments: &[String], service: &'a Service) -> Recognised<'a> {
    if !service.persistent_if.as_ref().is_none_or(|when| persists(container, arguments, when)) {
        return Recognised { service, data: Vec::new(), told: None };
    }
    let by_argument = service.arguments.iter().find_map(|option| {
        let value = value_of(arguments, option)?;
        Some((format!("{} {value}", option.trim_end_matches('=')), value))
    });
    let by_env = service.env.iter().find_map(|name| {
        let value = container.env.get(name)?;
        value.starts_with('/').then(|| (format!("{name}={value}"), value.clone()))
    });
    match by_argument.or(by_env) {
        Some((said, path)) => {
            let data: Vec<String> = path.split(',').filter(|path| path.starts_with('/')).map(tidy).collect();
            // The image's own default, said in its environment, is nobody's wish.
            let told = data.iter().any(|path| !service.data.contains(path)).then_some(said);
            Recognised { service, data, told }
        }
        None => Recognised { service, data: service.data.clone(), told: None },
    }
}

/// A path without a slash at the end or doubled ones.
fn tidy(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// The absolute path that an option is given.
fn value_of(arguments: &[String], option: &str) -> Option<String> {
    let bare = option.trim_end_matches('=');
    let joined = |word: &String| {
        let rest = word.strip_prefix(bare)?;
        let short = bare.len() == 2 && bare.starts_with('-');
        rest.strip_prefix('=').or(short.then_some(rest)).map(str::to_owned)
    };
    let next = |at: usize| (arguments[at] == bare).then(|| arguments.get(at + 1).cloned()).flatten();
    // The last one counts, as for nearly every program.
    (0..arguments.len())
        .rev()
        .find_map(|at| next(at).or_else(|| joined(&arguments[at])).filter(|value| value.starts_with('/')))
}

/// Whether the service keeps anything.
fn persists(container: &Container, arguments: &[String], when: &PersistentIf) -> bool {
    let said = |sequences: &[Vec<String>]| sequences.iter().any(|sequence| has_sequence(arguments, sequence));
    let set = |pairs: &[String]| {
        pairs.iter().any(|pair| matches_pair(pair, |key| container.env.get(key).map(String::as_str)))
    };
    if said(&when.on) || set(&when.on_env) {
        return true;
    }
    if said(&when.off) || set(&when.off_env) {
        return false;
    }
    when.default
}

/// Whether the arguments have these, one after the other; `--a b` is also found as `--a=b`.
fn has_sequence(arguments: &[String], sequence: &[String]) -> bool {
    let same = |window: &[String]| {
        window.iter().zip(sequence).all(|(word, known)| wildcard(known.as_bytes(), word.as_bytes()))
    };
    let joined = sequence.join("=");
    !sequence.is_empty()
        && (arguments.windows(sequence.len()).any(same)
            || arguments
                .iter()
                .any(|word| sequence.len() > 1 && wildcard(joined.as_bytes(), word.as_bytes())))
}

/// Whether the value that belongs to the key of `key=pattern` matches the pattern.
fn matches_pair<'a>(pair: &str, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    pair.split_once('=').is_some_and(|(key, pattern)| {
        value(key).is_some_and(|value| wildcard(pattern.as_bytes(), value.as_bytes()))
    })
}

/// The words of a command. What a shell is handed as one word is taken apart, as far as that goes without a shell.
fn arguments(command: &[String]) -> Vec<String> {
    let unquoted = |word: &str| word.trim_matches(['"', '\'']).to_owned();
    let words = command.iter().flat_map(|word| {
        if word.contains(char::is_whitespace) {
            word.split_whitespace().map(unquoted).collect()
        } else {
            vec![word.clone()]
        }
    });
    words.collect()
}

impl Rules {
    /// The paths that matter for this container besides those that every [`crate::Tally`] watches: where its environment or
    /// its command put the data, and its declared volumes. Its `layer` need not be known yet.
    pub fn data_paths(&self, container: &Container) -> Vec<String> {
        let data = recognise(container, self).into_iter().flat_map(|found| found.data);
        let declared = container.declared_volumes.iter().map(|path| tidy(path));
        data.chain(declared).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_compared_by_their_last_parts() {
        let path = |image| ImageName::new(image).path;
        assert_eq!(path("postgres"), "postgres");
        assert_eq!(path("registry:5000/a/postgres:16"), "a/postgres");
        assert_eq!(path("localhost/postgres"), "postgres");
        assert_eq!(path("docker.io/library/postgres@sha256:0"), "library/postgres");
        let is = |image, pattern| ImageName::new(image).is(pattern);
        assert!(is("postgres:16", "postgres") && is("ghcr.io/mirror/library/postgres", "postgres"));
        assert!(is("mirror.corp/hub/bitnami/redis:7", "bitnami/redis"));
        assert!(!is("redis", "bitnami/redis") && !is("oliver006/redis_exporter", "redis"));
        assert!(!is("sha256:0123", "postgres"));
    }

    #[test]
    fn tags_that_move() {
        let moves = |image| ImageName::new(image).moves();
        assert!(moves("postgres") && moves("r:5000/postgres") && moves("postgres:latest"));
        assert!(!moves("postgres:16") && !moves("r:5000/postgres:16") && !moves("postgres@sha256:0"));
    }

    #[test]
    fn options_are_found_in_each_form() {
        let words = |text: &str| arguments(&["sh".into(), "-c".into(), text.into()]);
        let value = |text: &str, option: &str| value_of(&words(text), option);
        assert_eq!(value("postgres -D /x", "-D").as_deref(), Some("/x"));
        assert_eq!(value("postgres -D/x", "-D").as_deref(), Some("/x"));
        assert_eq!(value("mysqld --datadir=/x", "--datadir").as_deref(), Some("/x"));
        assert_eq!(value("mongod '--dbpath' '/x'", "--dbpath").as_deref(), Some("/x"));
        assert_eq!(value("a --dir /x --dir /y", "--dir").as_deref(), Some("/y"));
        assert_eq!(value("a --directory=/x", "--dir"), None);
        assert_eq!(value("a --dir relative", "--dir"), None);
        assert_eq!(value("a --dir", "--dir"), None);
    }

    #[test]
    fn sequences_are_found_joined_or_apart() {
        let has = |words: &[&str], sequence: &[&str]| {
            has_sequence(
                &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
                &sequence.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
            )
        };
        assert!(has(&["redis-server", "--save", ""], &["--save", ""]));
        assert!(has(&["x", "--storage=memory"], &["--storage", "memory"]));
        assert!(!has(&["redis-server", "--save", "60 1"], &["--save", ""]));
        assert!(!has(&["--save"], &["--save", ""]) && !has(&["a"], &[]));
    }
}
