//! Labels: what people and policies say about a volume.

use std::collections::BTreeMap;

/// The labels of one thing, ordered by key.
pub type Labels = BTreeMap<String, String>;

/// Why a label is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// No key.
    #[error("a label has no key: write KEY=VALUE")]
    EmptyKey,
    /// Key or value is too long, or holds control characters.
    #[error("the label {key:?} is not usable: {why}")]
    Unusable {
        /// The label's key.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Checks one label: a key of 1 to 256 bytes without white space or `=`, a value of at most 4 KiB, no control characters.
pub fn check_label(key: &str, value: &str) -> Result<(), LabelError> {
    let unusable = |why| Err(LabelError::Unusable { key: key.chars().take(64).collect(), why });
    if key.is_empty() {
        return Err(LabelError::EmptyKey);
    }
    if key.len() > 256 {
        return unusable("the key is longer than 256 bytes");
    }
    if key.chars().any(|c| c.is_whitespace() || c.is_control() || c == '=') {
        return unusable("the key has white space, `=` or control characters");
    }
    if value.len() > 4096 {
        return unusable("the value is longer than 4096 bytes");
    }
    if value.chars().any(char::is_control) {
        return unusable("the value has control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_labels() {
        assert_eq!(check_label("env", "prod"), Ok(()));
        assert_eq!(check_label("com.example/tier", ""), Ok(()));
        assert_eq!(check_label("", "x"), Err(LabelError::EmptyKey));
        for (key, value) in [("a b", ""), ("a=b", ""), ("a", "x\ny"), ("a\0", "")] {
            assert!(check_label(key, value).is_err(), "{key:?}={value:?}");
        }
        assert!(check_label(&"k".repeat(257), "").is_err());
        assert!(check_label("k", &"v".repeat(4097)).is_err());
    }
}
