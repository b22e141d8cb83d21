//! Where the keys of an S3 store come from: settings, the environment, and the files other S3 programs use.
//!
//! What `object_store` does by itself (web identity, containers, instances) it is told to do; it does not read the files.
//! Nothing here can be printed with a secret in it.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Where the keys come from.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// The usual chain: `AWS_ACCESS_KEY_ID` and so on, web identity, the credentials file, container, instance.
    #[default]
    Chain,
    /// A file like `~/.aws/credentials`, and the profile in it (`default` if there is none named).
    File {
        /// The file.
        path: PathBuf,
        /// The profile.
        profile: Option<String>,
    },
}

/// The environment variables that matter to an S3 store. Its values are never printed.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, Zeroizing<String>>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// That of this process.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|v| v.as_str()).filter(|v| !v.is_empty())
    }

    fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// The endpoint it names.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        let matters = |name: &str| name.starts_with("AWS_") || name == "HOME";
        let kept = variables.into_iter().filter(|(name, _)| matters(name));
        Self(kept.map(|(name, value)| (name, Zeroizing::new(value))).collect())
    }
}

/// A pair of keys.
#[derive(Clone)]
struct Keys {
    id: Zeroizing<String>,
    secret: Zeroizing<String>,
    token: Option<Zeroizing<String>>,
}

/// What was found.
pub(super) struct Found {
    /// Where, for messages.
    pub(super) origin: String,
    /// The region, if one was named.
    pub(super) region: Option<String>,
    keys: Option<Keys>,
    others: Vec<(AmazonS3ConfigKey, String)>,
}

impl Found {
    /// Tells the builder.
    pub(super) fn apply(&self, mut builder: AmazonS3Builder) -> AmazonS3Builder {
        if let Some(keys) = &self.keys {
            builder =
                builder.with_access_key_id(keys.id.as_str()).with_secret_access_key(keys.secret.as_str());
            if let Some(token) = &keys.token {
                builder = builder.with_token(token.as_str());
            }
        }
        self.others.iter().fold(builder, |builder, (key, value)| builder.with_config(*key, value))
    }

    /// What must not come into a message.
    pub(super) fn secrets(&self) -> Vec<Zeroizing<String>> {
        let Some(keys) = &self.keys else { return Vec::new() };
        let mut secrets = vec![keys.secret.clone(), keys.id.clone()];
        secrets.extend(keys.token.clone());
        secrets
    }
}

/// Environment variables that make `object_store` fetch keys by itself.
const FETCHED: [(&str, AmazonS3ConfigKey); 7] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

/// Finds the keys. An error says in words what is wrong, without a secret.
pub(super) fn find(credentials: &Credentials, env: &Environment) -> Result<Found, String> {
    let region = env.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).map(str::to_owned);
    let found = |origin: String, keys, others| Found { origin, region: region.clone(), keys, others };
    let profile = |named: &Option<String>| {
        named
            .clone()
            .or_else(|| env.get("AWS_PROFILE").map(str::to_owned))
            .unwrap_or_else(|| "default".to_owned())
    };
    match credentials {
        Credentials::File { path, profile: named } => {
            let name = named.clone().unwrap_or_else(|| "default".to_owned());
            let profile = Profile::read(path, &name)?
                .ok_or_else(|| format!("{}: there is no profile [{name}] in it", path.display()))?;
            let keys = profile.keys(path, &name)?;
            let mut found = found(path.display().to_string(), Some(keys), Vec::new());
            found.region = profile.get("region").map(str::to_owned).or(found.region);
            Ok(found)
        }
        Credentials::Chain => {
            if let (Some(id), Some(secret)) = (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY"))
            {
                let token = env.first(&["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]);
                let own = |s: &str| Zeroizing::new(s.to_owned());
                let keys = Keys { id: own(id), secret: own(secret), token: token.map(own) };
                return Ok(found("the environment".to_owned(), Some(keys), Vec::new()));
            }
            let fetched: Vec<_> =
                FETCHED.iter().filter_map(|(name, key)| Some((*key, env.get(name)?.to_owned()))).collect();
            if env.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
                return Ok(found("the web identity in the environment".to_owned(), None, fetched));
            }
            let home = env.get("HOME").map(|home| Path::new(home).join(".aws"));
            let file = |variable: &str, name: &str| {
                env.get(variable).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(name)))
            };
            let name = profile(&None);
            let settings = match file("AWS_CONFIG_FILE", "config") {
                Some(path) => Profile::read(&path, &name)?,
                None => None,
            };
            let region = settings.as_ref().and_then(|s| s.get("region")).map(str::to_owned);
            if let Some(path) = file("AWS_SHARED_CREDENTIALS_FILE", "credentials")
                && let Some(profile) = Profile::read(&path, &name)?
            {
                let mut found =
                    found(path.display().to_string(), Some(profile.keys(&path, &name)?), Vec::new());
                found.region = found.region.or_else(|| profile.get("region").map(str::to_owned)).or(region);
                return Ok(found);
            }
            if fetched.iter().any(|(key, _)| {
                use AmazonS3ConfigKey as K;
                matches!(key, K::ContainerCredentialsRelativeUri | K::ContainerCredentialsFullUri)
            }) {
                return Ok(found("the container's environment".to_owned(), None, fetched));
            }
            if env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
                return Err("there are no credentials: neither in the environment nor in a file".to_owned());
            }
            let mut found = found("the instance's metadata service".to_owned(), None, Vec::new());
            found.region = found.region.or(region);
            Ok(found)
        }
    }
}

/// One profile of a file.
struct Profile(BTreeMap<String, Zeroizing<String>>);

impl Profile {
    /// Reads a profile; `None` if there is no such file or no such profile in it.
    fn read(path: &Path, name: &str) -> Result<Option<Self>, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&Zeroizing::new(text), name)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!("{}: {e}", path.display())),
        }
    }

    fn parse(text: &str, name: &str) -> Option<Self> {
        let mut found = None;
        let mut inside = false;
        for line in text.lines() {
            let unindented = !line.starts_with([' ', '\t']);
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
                let section = section.trim();
                inside = section.strip_prefix("profile ").map_or(section, str::trim_start) == name;
                if inside {
                    found.get_or_insert_with(BTreeMap::new);
                }
            } else if inside
                && unindented
                && let Some((key, value)) = line.split_once('=')
                && let Some(entries) = &mut found
            {
                entries.insert(key.trim().to_ascii_lowercase(), Zeroizing::new(value.trim().to_owned()));
            }
        }
        found.map(Self)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| v.as_str()).filter(|v| !v.is_empty())
    }

    fn keys(&self, path: &Path, name: &str) -> Result<Keys, String> {
        let own = |key: &str| self.get(key).map(|v| Zeroizing::new(v.to_owned()));
        match (own("aws_access_key_id"), own("aws_secret_access_key")) {
            (Some(id), Some(secret)) => Ok(Keys { id, secret, token: own("aws_session_token") }),
            _ => {
                let other = ["credential_process", "sso_session", "sso_start_url", "role_arn"];
                let why = other.iter().find(|k| self.get(k).is_some()).map_or_else(String::new, |k| {
                    format!("; {k} is not supported: put keys there, or into the environment")
                });
                let path = path.display();
                Err(format!(
                    "{path}: the profile [{name}] lacks aws_access_key_id or aws_secret_access_key{why}"
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# mine\n[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key=s3cr3t/+=x\n\n\
        [profile other]\n; a comment\naws_access_key_id=AKIAOTHER\naws_secret_access_key = other secret\n\
        aws_session_token = token\nregion = eu-central-1\ns3 =\n  region = nested\n[sso]\nsso_session = x\n";

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn profiles_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, FILE).unwrap();
        let of = |profile: Option<&str>| {
            find(
                &Credentials::File { path: path.clone(), profile: profile.map(str::to_owned) },
                &Environment::default(),
            )
        };
        let default = of(None).unwrap().keys.unwrap();
        assert_eq!((default.id.as_str(), default.secret.as_str()), ("AKIADEFAULT", "s3cr3t/+=x"));
        assert!(default.token.is_none());
        let other = of(Some("other")).unwrap();
        assert_eq!(other.region.as_deref(), Some("eu-central-1"));
        assert_eq!(other.keys.unwrap().token.unwrap().as_str(), "token");
        assert!(of(Some("none")).err().unwrap().contains("no profile [none]"));
        assert!(of(Some("sso")).err().unwrap().contains("sso_session is not supported"));
    }

    #[test]
    fn the_chain_has_an_order() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), FILE).unwrap();
        std::fs::write(home.path().join(".aws/config"), "[profile default]\nregion = eu-west-3\n").unwrap();
        let home = home.path().to_str().unwrap();
        let chain = |pairs: &[(&str, &str)]| find(&Credentials::Chain, &env(pairs));
        let keys = [("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "x"), ("HOME", home)];
        let found = chain(&keys).unwrap();
        assert_eq!((found.origin.as_str(), found.keys.unwrap().id.as_str()), ("the environment", "AKIAENV"));
        let found = chain(&[("HOME", home)]).unwrap();
        assert_eq!(found.region.as_deref(), Some("eu-west-3"));
        assert_eq!(found.keys.unwrap().id.as_str(), "AKIADEFAULT");
        let found = chain(&[("HOME", home), ("AWS_PROFILE", "other")]).unwrap();
        assert_eq!(found.keys.unwrap().id.as_str(), "AKIAOTHER");
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn"), ("HOME", home)];
        assert_eq!(chain(&web).unwrap().origin, "the web identity in the environment");
        assert_eq!(chain(&[]).unwrap().origin, "the instance's metadata service");
        assert!(chain(&[("AWS_EC2_METADATA_DISABLED", "true")]).is_err());
    }

    #[test]
    fn an_environment_prints_no_values() {
        let env = env(&[("AWS_SECRET_ACCESS_KEY", "hidden"), ("PATH", "/bin")]);
        assert_eq!(format!("{env:?}"), r#"{"AWS_SECRET_ACCESS_KEY"}"#);
    }
}
