//! Version numbers, as kernels and programs write them.

/// The first two numbers, which is what a requirement names: `6.1.0-18-amd64` is (6, 1).
pub(crate) fn parse(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn versions_are_read_as_the_tools_write_them() {
        assert_eq!(parse("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(parse("20.10.24+dfsg1"), Some((20, 10)));
        assert_eq!(parse("7-rc1"), Some((7, 0)));
        assert_eq!(parse("unknown"), None);
    }
}
