//! Numbers, names and commands in sentences for people.

use jiff::Timestamp;
use model::Size;
use std::time::Duration;

/// `4.2 GiB`, `512 B`.
pub(crate) fn bytes(bytes: u64) -> String {
    let text = Size::from_bytes(bytes).to_string();
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    format!("{} {unit}", number.strip_suffix(".0").unwrap_or(number))
}

/// `1 file`, `12 files`. The plural takes an s.
pub(crate) fn count(number: u64, thing: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{s}")
}

/// `1.2 GiB in 12 files`.
pub(crate) fn amount(amount: crate::tally::Amount) -> String {
    format!("{} in {}", bytes(amount.bytes), count(amount.files, "file"))
}

/// `a`, `a and b`, `a, b and c`; after `most` of them, `and 7 more`.
pub(crate) fn list(names: &[String], most: usize) -> String {
    match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        _ if names.len() <= most => {
            let (last, first) =
                names.split_last().map_or(("", names), |(last, first)| (last.as_str(), first));
            format!("{} and {last}", first.join(", "))
        }
        _ => format!("{} and {} more", names[..most].join(", "), names.len() - most),
    }
}

/// `just now`, `5 minutes before`, `3 days before`; `None` if it lies in the future.
pub(crate) fn ago(then: Timestamp, now: Timestamp, just_now: Duration) -> Option<String> {
    let age = u64::try_from(now.as_second().checked_sub(then.as_second())?).ok()?;
    Some(match age {
        age if age <= just_now.as_secs() => "just now".to_owned(),
        age if age < 3600 => format!("{} ago", count((age / 60).max(1), "minute")),
        age if age < 48 * 3600 => format!("{} ago", count(age / 3600, "hour")),
        age => format!("{} ago", count(age / 86_400, "day")),
    })
}

/// A text as one word of a shell command. Control characters are written out, so that no name can hide one.
pub(crate) fn quote(text: &str) -> String {
    // Neither ~ nor = at the beginning, nor anything else that some shell may expand.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('=') {
        return text.to_owned();
    }
    if !text.chars().any(hides) {
        return format!("'{}'", text.replace('\'', r"'\''"));
    }
    let mut quoted = String::from("$'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            c if hides(c) => {
                c.to_string().bytes().for_each(|byte| quoted.push_str(&format!("\\x{byte:02x}")))
            }
            c => quoted.push(c),
        }
    }
    quoted + "'"
}

/// A text for a terminal or a page, on which nothing in it can act: no control characters, none that turn the direction.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if hides(c) { '\u{fffd}' } else { c }).collect()
}

fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{2028}' | '\u{2029}')
}

/// The first letter in upper case.
pub(crate) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lists() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(4_509_715_661), "4.2 GiB");
        assert_eq!(bytes(2 << 30), "2 GiB");
        assert_eq!(bytes((2 << 30) + 1), "2 GiB");
        assert_eq!((count(1, "file"), count(0, "file")), ("1 file".into(), "0 files".into()));
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(list(&names[..1], 3), "a");
        assert_eq!(list(&names[..2], 3), "a and b");
        assert_eq!(list(&names[..3], 3), "a, b and c");
        assert_eq!(list(&names, 3), "a, b, c and 1 more");
    }

    #[test]
    fn ages() {
        let now = Timestamp::from_second(10_000_000).unwrap();
        let age = |seconds: i64| {
            ago(Timestamp::from_second(10_000_000 - seconds).unwrap(), now, Duration::from_secs(300))
        };
        assert_eq!(age(300).as_deref(), Some("just now"));
        assert_eq!(age(3599).as_deref(), Some("59 minutes ago"));
        assert_eq!(age(3600).as_deref(), Some("1 hour ago"));
        assert_eq!(age(86_400 * 3).as_deref(), Some("3 days ago"));
        assert_eq!(age(-5), None);
    }

    #[test]
    fn commands_are_safe_to_paste() {
        assert_eq!(quote("/srv/pool-1"), "/srv/pool-1");
        assert_eq!(quote("/srv/a b; rm"), "'/srv/a b; rm'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("~root"), "'~root'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a\n$(b)'"), r"$'a\x0a$(b)\''");
        assert_eq!(quote("\u{202e}x"), r"$'\xe2\x80\xaex'");
    }

    #[test]
    fn a_shell_gets_back_what_was_quoted() {
        let texts = [
            "a",
            "it's",
            "a b",
            "$(x) `y` \\",
            "-n",
            "~",
            "*",
            "a\nb",
            "\t'\\",
            "é\u{202e}",
            "!x",
            "{a,b}",
            "a\u{1}2",
        ];
        for text in texts {
            let output = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {}", quote(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{}", quote(text));
        }
    }

    #[test]
    fn nothing_acts_on_a_terminal() {
        assert_eq!(plain("a\x1b[31mb\u{202e}"), "a\u{fffd}[31mb\u{fffd}");
    }
}
