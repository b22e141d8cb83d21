//! Options as people give them: `-o KEY=VALUE` of Docker and of the command line, and the body of a REST request.
//!
//! One list of keys serves all three; what is not on it is refused with the nearest match.

use crate::protection::{Protect, ProtectionRequest};
use crate::spec::{
    Defaults, Dir, DriverKind, DriverSpec, FsKind, Image, Mode, Owner, Provisioning, Sim, Spec, SpecError,
    Tmpfs,
};
use crate::{AutoGrow, LabelError, Labels, MountOptions, NameError, PoolName, Size, SizeError, check_label};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Every key, with the values it takes.
pub const KNOWN_OPTIONS: [(&str, &str); 19] = [
    ("autogrow", "max:50GiB,at:85%,by:20%"),
    ("driver", "image|dir|tmpfs"),
    ("exclusive", "true|false: one holder at a time"),
    ("fs", "ext4|xfs"),
    ("gid", "group number or name"),
    ("group", "name of a group, whose volumes are cut at the same instant (implies protect=on)"),
    ("keep", "1s:10m,1m:24h,1h:7d,1d:90d (implies protect=on)"),
    ("label.KEY", "any text"),
    ("mode", "octal permission bits, such as 0750"),
    ("mount-options", "such as noatime,commit=30"),
    ("path", "an existing host directory, used in place (driver=dir)"),
    ("pool", "name of a pool"),
    ("protect", "on|off, or the time between two cuts such as 1s"),
    ("provisioning", "thin|thick"),
    ("readonly", "true|false"),
    ("selinux", "SELinux context of the mount"),
    ("size", "such as 10GiB or 500MB"),
    ("uid", "user number or name"),
    ("vault", "name of a vault (implies protect=on)"),
];

/// Why options are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// A key that is not on the list.
    #[error("unknown option `{key}`{}; known options: {}", nearest(key), known())]
    Unknown {
        /// The key as given.
        key: String,
    },
    /// The same key twice.
    #[error("the option `{0}` is given twice: give it once")]
    Twice(String),
    /// A word without `=`.
    #[error("{0:?} is not an option: write KEY=VALUE")]
    NoValue(String),
    /// A value that the key does not take.
    #[error("{key}={value}: {why}")]
    BadValue {
        /// The key.
        key: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A label that is not usable.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Settings that do not go together.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

fn known() -> String {
    KNOWN_OPTIONS.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

fn nearest(key: &str) -> String {
    let close = KNOWN_OPTIONS
        .iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(&key.to_ascii_lowercase(), known), known))
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .min();
    close.map_or_else(String::new, |(_, known)| format!(" (did you mean `{known}`?)"))
}

/// A user or group, by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    /// Numeric ID.
    Id(u32),
    /// A name that the host must know.
    Name(String),
}

impl UserRef {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("give a number or a name".to_owned());
        }
        match text.parse::<u32>() {
            // (uid_t)-1 means "leave as it is" to chown(2), so it is nobody's number.
            Ok(u32::MAX) => Err("4294967295 is reserved by the kernel".to_owned()),
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+') => {
                Err("a number from 0 to 4294967294 is wanted".to_owned())
            }
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }

    fn resolve(&self, what: &'static str, look_up: impl Fn(&str) -> Option<u32>) -> Result<u32, SpecError> {
        match self {
            Self::Id(id) => Ok(*id),
            Self::Name(name) => {
                look_up(name).ok_or_else(|| SpecError::UnknownUser { what, name: name.clone() })
            }
        }
    }
}

impl fmt::Display for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// One option in which an existing volume is not what is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The option's key.
    pub option: String,
    /// The value asked for.
    pub asked: String,
    /// What the volume has, if it has such a setting at all.
    pub has: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &str| match (self.option.as_str(), value.parse()) {
            ("size", Ok(bytes)) => Size::from_bytes(bytes).to_string(),
            _ => value.to_owned(),
        };
        let has = self.has.as_deref().map_or_else(|| "none".to_owned(), show);
        write!(f, "{}: asked {}, has {has}", self.option, show(&self.asked))
    }
}

/// What was asked for, option by option; `None` where the request is silent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    driver: Option<DriverKind>,
    size: Option<Size>,
    fs: Option<FsKind>,
    provisioning: Option<Provisioning>,
    uid: Option<UserRef>,
    gid: Option<UserRef>,
    mode: Option<Mode>,
    path: Option<PathBuf>,
    exclusive: Option<bool>,
    readonly: Option<bool>,
    autogrow: Option<AutoGrow>,
    mount_options: Option<MountOptions>,
    selinux: Option<String>,
    pool: Option<PoolName>,
    protection: ProtectionRequest,
    labels: Labels,
    typed: BTreeMap<String, String>,
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("use true or false".to_owned()),
    }
}

fn context(text: &str) -> Result<String, String> {
    // The context ends up in mount data, where a comma or quote would begin another option.
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-' | '.' | ',');
    if text.split(':').count() >= 3 && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a context looks like system_u:object_r:container_file_t:s0".to_owned())
    }
}

fn set<T>(slot: &mut Option<T>, key: &str, value: Result<T, String>, text: &str) -> Result<(), OptionError> {
    let bad = |why| OptionError::BadValue { key: key.to_owned(), value: text.to_owned(), why };
    match slot.replace(value.map_err(bad)?) {
        None => Ok(()),
        Some(_) => Err(OptionError::Twice(key.to_owned())),
    }
}

impl Options {
    /// Reads pairs of key and value.
    ///
    /// # Errors
    /// An unknown key, a key given twice, or a value that the key does not take.
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for (key, value) in pairs {
            options.take(key.as_ref(), value.as_ref())?;
        }
        Ok(options)
    }

    /// Reads words of the form `KEY=VALUE`.
    ///
    /// # Errors
    /// As for [`Options::parse`], and a word without `=`.
    pub fn parse_words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for word in words {
            let word = word.as_ref();
            let (key, value) = word.split_once('=').ok_or_else(|| OptionError::NoValue(word.to_owned()))?;
            options.take(key, value)?;
        }
        Ok(options)
    }

    /// The options as they were given, word for word; without labels that were not given as options.
    pub fn typed(&self) -> &BTreeMap<String, String> {
        &self.typed
    }

    fn take(&mut self, key: &str, text: &str) -> Result<(), OptionError> {
        self.understand(key, text)?;
        self.typed.insert(key.to_owned(), text.to_owned());
        Ok(())
    }

    fn understand(&mut self, key: &str, text: &str) -> Result<(), OptionError> {
        let say = |error: SizeError| error.to_string();
        let say_name = |error: NameError| error.to_string();
        match key {
            "driver" => set(&mut self.driver, key, text.parse(), text),
            "size" => set(&mut self.size, key, text.parse().map_err(say), text),
            "fs" => set(&mut self.fs, key, text.parse(), text),
            "provisioning" => set(&mut self.provisioning, key, text.parse(), text),
            "uid" => set(&mut self.uid, key, UserRef::parse(text), text),
            "gid" => set(&mut self.gid, key, UserRef::parse(text), text),
            "mode" => set(&mut self.mode, key, text.parse(), text),
            "path" => {
                let path = PathBuf::from(text);
                let absolute =
                    if path.is_absolute() { Ok(path) } else { Err("give an absolute path".to_owned()) };
                set(&mut self.path, key, absolute, text)
            }
            "exclusive" => set(&mut self.exclusive, key, truth(text), text),
            "readonly" => set(&mut self.readonly, key, truth(text), text),
            "autogrow" => set(&mut self.autogrow, key, text.parse(), text),
            "mount-options" => set(&mut self.mount_options, key, text.parse(), text),
            "selinux" => set(&mut self.selinux, key, context(text), text),
            "pool" => set(&mut self.pool, key, text.parse().map_err(say_name), text),
            "protect" => set(&mut self.protection.protect, key, text.parse(), text),
            "vault" => set(&mut self.protection.vault, key, text.parse().map_err(say_name), text),
            "keep" => set(&mut self.protection.keep, key, text.parse(), text),
            "group" => set(&mut self.protection.group, key, text.parse().map_err(say_name), text),
            _ => match key.strip_prefix("label.") {
                Some(label) => self.label(label, text),
                None => Err(OptionError::Unknown { key: key.chars().take(80).collect() }),
            },
        }
    }

    /// Adds a label.
    ///
    /// # Errors
    /// A label that is not usable, or given twice.
    pub fn label(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        check_label(key, value)?;
        match self.labels.insert(key.to_owned(), value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(OptionError::Twice(format!("label.{key}"))),
        }
    }

    /// The pool asked for, if any.
    pub fn pool(&self) -> Option<&PoolName> {
        self.pool.as_ref()
    }

    /// Completes the request with `defaults` and checks that all of it goes together.
    ///
    /// # Errors
    /// Options that the driver does not have, that contradict each other, or sizes that are too small.
    pub fn resolve(
        &self,
        defaults: &Defaults,
        user: impl Fn(&str) -> Option<u32>,
        group: impl Fn(&str) -> Option<u32>,
    ) -> Result<Spec, SpecError> {
        // `path=` can only mean a directory.
        let implied = if self.path.is_some() { DriverKind::Dir } else { defaults.driver };
        let kind = self.driver.unwrap_or(implied);
        self.refuse_foreign(kind)?;
        let uid = self.uid.as_ref().map(|user_ref| user_ref.resolve("user", user)).transpose()?;
        let gid = self.gid.as_ref().map(|user_ref| user_ref.resolve("group", group)).transpose()?;
        let owner =
            Owner { uid: uid.unwrap_or(0), gid: gid.unwrap_or(0), mode: self.mode.unwrap_or(Mode::DEFAULT) };
        let mount_options = self.mount_options.clone().unwrap_or_default();
        let driver = match kind {
            DriverKind::Image => DriverSpec::Image(Image {
                size: self.size.unwrap_or(defaults.image_size),
                fs: self.fs.unwrap_or(defaults.fs),
                provisioning: self.provisioning.unwrap_or(defaults.provisioning),
                autogrow: self.autogrow,
                mount_options,
                selinux: self.selinux.clone(),
            }),
            DriverKind::Dir => DriverSpec::Dir(Dir { size: self.size, path: self.path.clone() }),
            DriverKind::Tmpfs => DriverSpec::Tmpfs(Tmpfs {
                size: self.size.unwrap_or(defaults.tmpfs_size),
                mount_options,
                selinux: self.selinux.clone(),
            }),
            DriverKind::Sim => DriverSpec::Sim(Sim { size: self.size.unwrap_or(defaults.image_size) }),
        };
        let spec = Spec {
            driver,
            pool: self.pool.clone().unwrap_or_else(|| defaults.pool.clone()),
            owner,
            exclusive: self.exclusive.unwrap_or(false),
            readonly: self.readonly.unwrap_or(false),
            protection: self.protection.resolve(kind, defaults)?,
            labels: self.labels.clone(),
        };
        spec.check()?;
        Ok(spec)
    }

    fn refuse_foreign(&self, driver: DriverKind) -> Result<(), SpecError> {
        let image_only = "only an image has a file system and a size of its own";
        let mounted = "a plain directory has no mount of its own; use driver=image";
        let image = driver == DriverKind::Image;
        let tmpfs = driver == DriverKind::Tmpfs;
        let rules = [
            ("fs", self.fs.is_some(), image, image_only),
            ("provisioning", self.provisioning.is_some(), image, image_only),
            ("autogrow", self.autogrow.is_some(), image, image_only),
            ("mount-options", self.mount_options.is_some(), image || tmpfs, mounted),
            ("selinux", self.selinux.is_some(), image || tmpfs, mounted),
            (
                "path",
                self.path.is_some(),
                driver == DriverKind::Dir,
                "only driver=dir uses an existing directory",
            ),
        ];
        if let Some((option, _, _, why)) = rules.into_iter().find(|(_, given, fits, _)| *given && !fits) {
            return Err(SpecError::NotWithDriver { option, driver, why });
        }
        let contradictions = [
            (
                "size",
                self.size.is_some(),
                "the directory exists already and is used as it is, without a limit",
            ),
            ("uid", self.uid.is_some(), "the directory exists already and keeps its owner"),
            ("gid", self.gid.is_some(), "the directory exists already and keeps its group"),
            ("mode", self.mode.is_some(), "the directory exists already and keeps its mode"),
        ];
        match contradictions.into_iter().find(|(_, given, _)| *given && self.path.is_some()) {
            Some((other, _, why)) => Err(SpecError::Contradiction { one: "path", other, why }),
            None => Ok(()),
        }
    }

    /// The keys that the request names, in the words of [`Spec::describe`].
    pub fn given(&self) -> Vec<String> {
        let fixed = [
            ("driver", self.driver.is_some()),
            ("size", self.size.is_some()),
            ("fs", self.fs.is_some()),
            ("provisioning", self.provisioning.is_some()),
            ("uid", self.uid.is_some()),
            ("gid", self.gid.is_some()),
            ("mode", self.mode.is_some()),
            ("path", self.path.is_some()),
            ("exclusive", self.exclusive.is_some()),
            ("readonly", self.readonly.is_some()),
            ("autogrow", self.autogrow.is_some()),
            ("mount-options", self.mount_options.is_some()),
            ("selinux", self.selinux.is_some()),
            ("pool", self.pool.is_some()),
        ];
        let labels = self.labels.keys().map(|key| format!("label.{key}"));
        let fixed = fixed.into_iter().chain(self.protection.given());
        fixed.filter(|(_, given)| *given).map(|(key, _)| key.to_owned()).chain(labels).collect()
    }

    /// What the request names, with the values it resolved to: kept with the volume, so that asking for the same
    /// again is recognised even after the volume has grown.
    pub fn asked(&self, resolved: &Spec) -> BTreeMap<String, String> {
        let mut described = resolved.describe();
        // `on` leaves the interval open, and what holds then must not be taken for what was asked.
        if self.protection.protect == Some(Protect::On) {
            described.insert("protect".to_owned(), "on".to_owned());
        }
        self.given().into_iter().filter_map(|key| described.remove(&key).map(|value| (key, value))).collect()
    }

    /// Where an existing volume is not what `resolved` asks for. Only options that the request names count.
    pub fn differences(
        &self,
        resolved: &Spec,
        existing: &Spec,
        asked_then: &BTreeMap<String, String>,
    ) -> Vec<Difference> {
        let has = existing.describe();
        let protected =
            |option: &str, asked: &str| option == "protect" && asked == "on" && existing.protection.is_some();
        self.asked(resolved)
            .into_iter()
            .filter(|(option, asked)| has.get(option) != Some(asked) && asked_then.get(option) != Some(asked))
            .filter(|(option, asked)| !protected(option, asked))
            .map(|(option, asked)| Difference { has: has.get(&option).cloned(), option, asked })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protection;
    use proptest::prelude::*;

    fn defaults() -> Defaults {
        Defaults {
            driver: DriverKind::Image,
            pool: "default".parse().unwrap(),
            image_size: Size::from_gib(10),
            tmpfs_size: Size::from_mib(64),
            fs: FsKind::Ext4,
            provisioning: Provisioning::Thin,
            protect: false,
            protection: Protection::default(),
        }
    }

    fn spec(words: &[&str]) -> Result<Spec, OptionError> {
        let options = Options::parse_words(words)?;
        Ok(options.resolve(&defaults(), |name| (name == "postgres").then_some(999), |_| None)?)
    }

    #[test]
    fn silence_means_the_defaults() {
        let spec = spec(&[]).unwrap();
        assert_eq!((spec.kind(), spec.size()), (DriverKind::Image, Some(Size::from_gib(10))));
        assert!(!spec.exclusive && !spec.readonly);
    }

    #[test]
    fn everything_at_once() {
        let spec = spec(&[
            "size=1GiB",
            "fs=xfs",
            "provisioning=thick",
            "uid=postgres",
            "gid=7",
            "mode=2770",
            "exclusive=true",
            "readonly=no",
            "autogrow=max:5GiB",
            "mount-options=noatime",
            "selinux=system_u:object_r:container_file_t:s0",
            "pool=fast",
            "protect=5s",
            "vault=far",
            "keep=1m:1h",
            "group=shop",
            "label.env=prod",
        ])
        .unwrap();
        assert_eq!((spec.owner.uid, spec.owner.gid, spec.owner.mode.bits()), (999, 7, 0o2770));
        assert_eq!(spec.labels["env"], "prod");
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    }

    #[test]
    fn unknown_options_are_refused_with_the_nearest() {
        for (word, near) in
            [("sise=1G", "`size`"), ("Driver=dir", "`driver`"), ("read-only=true", "`readonly`")]
        {
            let error = spec(&[word]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("did you mean {near}")) && error.contains("known options: autogrow"),
                "{error}"
            );
        }
        assert!(!spec(&["zzzzzz=1"]).unwrap_err().to_string().contains("did you mean"));
    }

    #[test]
    fn contradictions_are_refused() {
        for words in [
            &["driver=dir", "fs=xfs"][..],
            &["driver=tmpfs", "path=/srv/x"],
            &["driver=image", "path=/srv/x"],
            &["path=/srv/x", "size=1G"],
            &["path=/srv/x", "uid=1"],
            &["path=relative"],
            &["driver=dir", "mount-options=noatime"],
            &["size=2G", "autogrow=max:1G"],
            &["size=1G", "size=1G"],
            &["label.a=1", "label.a=2"],
            &["fs=xfs", "size=299MiB"],
            &["size=0"],
            &["size=1023KiB"],
            &["uid=nobody-here"],
            &["uid=4294967295"],
            &["uid=-1"],
            &["mode=9"],
            &["mode=10000"],
            &["exclusive=maybe"],
            &["selinux=a,b"],
            &["pool=../x"],
            &["nonsense"],
        ] {
            assert!(spec(words).is_err(), "{words:?} passed");
        }
        assert_eq!(spec(&["path=/srv/x"]).unwrap().kind(), DriverKind::Dir, "path= implies dir");
    }

    #[test]
    fn same_options_again_are_no_difference_also_after_growth() {
        let options = Options::parse_words(["size=1GiB", "label.env=prod"]).unwrap();
        let resolved = options.resolve(&defaults(), |_| None, |_| None).unwrap();
        let asked = options.asked(&resolved);
        let grown = resolved.with_size(Size::from_gib(3));
        assert_eq!(options.differences(&resolved, &grown, &asked), []);

        let other = Options::parse_words(["size=2GiB", "fs=xfs"]).unwrap();
        let other_spec = other.resolve(&defaults(), |_| None, |_| None).unwrap();
        let told: Vec<_> =
            other.differences(&other_spec, &grown, &asked).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["fs: asked xfs, has ext4", "size: asked 2GiB, has 3GiB"]);

        let silent = Options::default();
        let silent_spec = silent.resolve(&defaults(), |_| None, |_| None).unwrap();
        assert_eq!(
            silent.differences(&silent_spec, &grown, &asked),
            [],
            "what is not asked for can't differ"
        );
    }

    proptest! {
        #[test]
        fn any_input_is_answered(words in proptest::collection::vec("[a-z.]{0,10}=?\\PC{0,12}", 0..4)) {
            let _answered = spec(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
