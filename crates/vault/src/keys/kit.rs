//! Recovery kits, and what in them says which data key they are for.
//!
//! `age` does not say who sealed: whoever knows a recipient can seal another key for it. So a kit names the data key by its
//! fingerprint, and what it opens is compared with that. Any identity file of `age` may have such a line; without one,
//! a vault that was put in another's place can't be told.

use super::{DataKey, KeyError, VaultId, unhex};
use age::secrecy::ExposeSecret;
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What the line begins with; whether in a comment, and how it is spelled, is all the same.
const LINE: &str = "fingerprint:";

const PURPOSE: &str = "everhold vault 1: fingerprint";

/// What a data key and the vault it is of are known by. It is no secret: nothing can be opened with it, nor guessed.
///
/// 128 bits: whoever wants to put another key in the place of this one has to find one with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if at > 0 && at % 2 == 0 { "-" } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    /// As somebody types it: with hyphens and blanks wherever, and capitals.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ' | '\t')).collect();
        unhex(&digits).map(Self).ok_or("a fingerprint has 32 hexadecimal digits")
    }
}

impl DataKey {
    /// What this key is known by, as that of a vault.
    pub fn fingerprint(&self, vault: VaultId) -> Fingerprint {
        let key = Zeroizing::new(self.derive(PURPOSE));
        let mut print = Fingerprint([0; 16]);
        print.0.copy_from_slice(&blake3::keyed_hash(&key, &vault.0).as_bytes()[..16]);
        print
    }
}

/// An identity that opens the vault, made with it and shown once.
pub struct RecoveryKit(age::x25519::Identity);

impl fmt::Debug for RecoveryKit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKit(…)")
    }
}

impl RecoveryKit {
    /// Draws one, from the system's random numbers.
    pub fn draw() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// What the data key is sealed for.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// The text to keep: an identity file of `age`, with words around it.
    pub fn text(
        &self,
        name: &str,
        vault: VaultId,
        key: &DataKey,
        url: &str,
        made: Timestamp,
    ) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "# Everhold recovery kit\n\
             #\n\
             # vault:       {name}\n\
             # id:          {vault}\n\
             # where:       {url}\n\
             # made:        {made:.0}\n\
             # for:         {recipient}\n\
             # fingerprint: {fingerprint}\n\
             #\n\
             # Who has this text and can read the vault can read all volumes' history in it.\n\
             # Without it, and without another key slot, nobody can. Print it or put it into a\n\
             # password store, and not only onto the host whose volumes it is to bring back.\n\
             # It is not shown again.\n\
             #\n\
             # To use it, put this text into a file and hand that to Everhold when it asks for\n\
             # the recovery kit. `age --decrypt -i FILE` takes it too. By the fingerprint\n\
             # Everhold tells whether somebody has put another vault in the place of this one.\n\
             {secret}\n",
            name = one_line(name),
            url = one_line(url),
            recipient = self.recipient(),
            fingerprint = key.fingerprint(vault),
            secret = self.0.to_string().expose_secret(),
        ))
    }
}

/// The identities in a kit, or in any identity file of `age`.
pub(super) fn identities(text: &str) -> Result<Vec<Box<dyn age::Identity>>, KeyError> {
    let mut identities: Vec<Box<dyn age::Identity>> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| l.starts_with("AGE-SECRET-KEY-1")) {
        let identity = age::x25519::Identity::from_str(line).map_err(|_| KeyError::BadIdentity)?;
        identities.push(Box::new(identity));
    }
    if identities.is_empty() { Err(KeyError::BadIdentity) } else { Ok(identities) }
}

/// The fingerprints in such a text. One that is not whole is an error: to pass it over would be to compare nothing.
///
/// They hold for all identities in the text, wherever they stand: else a further identity would be a way around them.
pub(super) fn fingerprints(text: &str) -> Result<Vec<Fingerprint>, KeyError> {
    let mut fingerprints = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim_start_matches(|c: char| c == '#' || c.is_whitespace());
        let Some((label, print)) = line.split_at_checked(LINE.len()) else { continue };
        if label.eq_ignore_ascii_case(LINE) {
            // What stands there is not repeated: it might be the secret, put into the wrong line.
            fingerprints.push(print.trim().parse().map_err(|_| KeyError::BadFingerprint { line: number })?);
        }
    }
    Ok(fingerprints)
}

/// What is printed into a comment must not end it.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{NewSlot, SecretString, Unlock, add_slot, unlock};
    use crate::store::MemoryStore;
    use proptest::prelude::*;
    use ring::rand::SystemRandom;

    const VAULT: VaultId = VaultId([0xab; 16]);

    fn made() -> Timestamp {
        "2025-01-02T03:04:05Z".parse().unwrap()
    }

    fn key() -> DataKey {
        DataKey::from_bytes([7; 32])
    }

    fn of(text: &str) -> Unlock {
        Unlock::Kit(SecretString::from(text.to_owned()))
    }

    fn text(kit: &RecoveryKit) -> String {
        kit.text("home", VAULT, &key(), "file:///srv/vault", made()).to_string()
    }

    fn identity(kit: &RecoveryKit) -> String {
        text(kit).lines().last().unwrap().to_owned()
    }

    /// A vault's slots, with these keys sealed for the kit.
    fn sealed(kit: &RecoveryKit, keys: &[&DataKey]) -> MemoryStore {
        let store = MemoryStore::new();
        for key in keys {
            add_slot(&store, VAULT, key, &NewSlot::for_kit(kit), made(), &SystemRandom::new()).unwrap();
        }
        store
    }

    #[test]
    fn a_fingerprint_stays_the_same() {
        let print = key().fingerprint(VAULT);
        assert_eq!(print.to_string(), "51fb-56f9-8f2a-7e21-d4db-5eb5-4719-3c76");
        assert_eq!(print.to_string().parse(), Ok(print));
        assert_eq!(print.to_string().to_uppercase().replace('-', " ").parse(), Ok(print));
        assert_ne!(key().fingerprint(VaultId([0xac; 16])), print, "another vault's");
        assert_ne!(DataKey::from_bytes([8; 32]).fingerprint(VAULT), print, "another key's");
    }

    #[test]
    fn a_kit_says_what_it_is_for() {
        let kit = RecoveryKit::draw();
        let text = kit.text("home\nAGE-SECRET-KEY-1X", VAULT, &key(), "file:///srv/vault", made());
        assert!(text.contains(&format!("# id:          {}", "ab".repeat(16))));
        assert!(text.contains("# where:       file:///srv/vault\n# made:        2025-01-02T03:04:05Z\n"));
        assert_eq!(text.lines().filter(|l| !l.starts_with('#')).count(), 1);
        assert_eq!(fingerprints(&text).unwrap(), [key().fingerprint(VAULT)]);
        assert!(identities(&text).is_ok() && of(&text).can_tell());
        assert!(matches!(identities("nothing"), Err(KeyError::BadIdentity)));
        assert!(matches!(identities(&text[..text.len() - 5]), Err(KeyError::BadIdentity)));
    }

    #[test]
    fn another_key_for_the_same_recipient_is_refused() {
        let (kit, stranger) = (RecoveryKit::draw(), DataKey::from_bytes([8; 32]));
        let exchanged = sealed(&kit, &[&stranger]);
        let error = unlock(&exchanged, VAULT, &of(&text(&kit))).unwrap_err();
        let (says, is) = (key().fingerprint(VAULT), stranger.fingerprint(VAULT));
        assert!(matches!(&error, KeyError::Exchanged { found, .. } if *found == is), "{error}");
        let told = error.to_string();
        assert!(told.contains(&says.to_string()) && told.contains(&is.to_string()), "{told}");
        // The identity alone opens it: then it is said that it can't tell.
        assert_eq!(unlock(&exchanged, VAULT, &of(&identity(&kit))).unwrap().expose(), stranger.expose());
        assert!(!of(&identity(&kit)).can_tell());
        assert!(Unlock::Passphrase(SecretString::from("x".to_owned())).can_tell());
        // A slot beside the right one keeps nobody out.
        for _ in 0..8 {
            let both = sealed(&kit, &[&stranger, &key(), &stranger]);
            assert_eq!(unlock(&both, VAULT, &of(&text(&kit))).unwrap().expose(), key().expose());
        }
    }

    #[test]
    fn kits_are_taken_as_people_keep_them() {
        let kit = RecoveryKit::draw();
        let (store, print) = (sealed(&kit, &[&key()]), key().fingerprint(VAULT).to_string());
        let other = key().fingerprint(VaultId([1; 16]));
        let identity = identity(&kit);
        let opens = |text: &str| unlock(&store, VAULT, &of(text));
        for text in [
            text(&kit).replace('\n', "\r\n"),
            text(&kit).replace("fingerprint:", "FingerPrint: "),
            text(&kit).replace(&print, &print.replace('-', "").to_uppercase()),
            // Noted in an identity file, wherever.
            format!("{identity}\n#fingerprint:{print}\n"),
            format!("fingerprint: {print}\n{identity}"),
            // Kits of two vaults in one file.
            format!("# fingerprint: {other}\n{}", text(&kit)),
        ] {
            assert_eq!(opens(&text).unwrap().expose(), key().expose(), "{text}");
            assert!(of(&text).can_tell(), "{text}");
        }
        for (text, line) in [
            (text(&kit).replace(&print, ""), 8),
            (text(&kit).replace(&print, &print[1..]), 8),
            (text(&kit).replace(&print, &format!("{print}0")), 8),
            (text(&kit).replace(&print, &print.replace('-', "_")), 8),
            (text(&kit).replace(&print, &format!("g{}", &print[1..])), 8),
            (format!("{}# fingerprint: {identity}\n", text(&kit)), 19),
            (format!("{identity}\nfingerprint: é"), 2),
        ] {
            let error = opens(&text).unwrap_err();
            assert!(
                matches!(error, KeyError::BadFingerprint { line: at } if at == line),
                "{line}: {error:?}"
            );
            assert!(!error.to_string().contains("AGE-SECRET"), "{error}");
            assert!(!of(&text).can_tell());
        }
        // It is looked at before the store is.
        let refused = opens(&format!("{identity}\n# fingerprint: {other}\n"));
        assert!(matches!(refused, Err(KeyError::Exchanged { .. })));
    }

    #[test]
    fn every_changed_digit_is_refused() {
        let kit = RecoveryKit::draw();
        let (store, text, print) =
            (sealed(&kit, &[&key()]), text(&kit), key().fingerprint(VAULT).to_string());
        let begin = text.find(&print).unwrap();
        for at in (0..print.len()).filter(|at| print.as_bytes()[*at] != b'-') {
            for digit in "0123456789abcdef".bytes().filter(|digit| *digit != print.as_bytes()[at]) {
                let mut changed = text.clone();
                changed.replace_range(begin + at..=begin + at, &char::from(digit).to_string());
                let result = unlock(&store, VAULT, &of(&changed));
                assert!(matches!(result, Err(KeyError::Exchanged { .. })), "{at} {digit}");
            }
        }
    }

    proptest! {
        /// Any character of the line may be wrong: it is the same fingerprint written otherwise, another one, or refused.
        #[test]
        fn a_changed_line_is_never_passed_over(at in 0..40_usize, byte in b' '..127) {
            let kit = RecoveryKit::draw();
            let print = key().fingerprint(VAULT).to_string();
            let mut line = format!(" {print}").into_bytes();
            line[at] = byte;
            let line = String::from_utf8(line).unwrap();
            let changed = text(&kit).replace(&format!(" {print}"), &line);
            match fingerprints(&changed) {
                Ok(fingerprints) => {
                    prop_assert_eq!(fingerprints.len(), 1);
                    let same = fingerprints[0] == key().fingerprint(VAULT);
                    let digits = |text: &str| text.replace(['-', ' '], "").to_lowercase();
                    prop_assert_eq!(same, digits(&line) == digits(&print), "{}", line);
                }
                Err(error) => {
                    let told = matches!(error, KeyError::BadFingerprint { line: 8 });
                    prop_assert!(told, "{:?}", error);
                }
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(?s).{0,200}", label in "#{0,2}[ \t]?fingerprint:.{0,50}") {
            let _read = (fingerprints(&text), identities(&text));
            // A line that says that it is one is never passed over.
            let found = fingerprints(&format!("{text}\n{label}"));
            prop_assert!(!found.is_ok_and(|found| found.is_empty()));
        }
    }
}
