//! A store in a bucket that speaks S3.
//!
//! Calls block on a small runtime of the store's own. Retries are made here and not in `object_store`, which could not
//! tell whether a creation that meets an object met its own earlier attempt.

use super::aws_files::{self, Credentials, Environment};
use super::{
    Abilities, Ability, Created, Object, Store, StoreError, StoreResult, check_name, check_prefix,
    check_range, unique,
};
use crate::url::{Location, S3Location};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt,
    PutMode, PutPayload, PutResult, RetryConfig,
};
use std::error::Error as _;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

/// How to reach a bucket.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Where the keys come from.
    pub credentials: Credentials,
    /// The environment of [`Credentials::Chain`].
    pub environment: Environment,
    /// Whether an endpoint may be `http:` that is not on this machine: what is stored is sealed, but an eavesdropper could
    /// repeat requests and sees names and sizes.
    pub allow_http: bool,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long one attempt may take, besides the time for its bytes.
    pub timeout: Duration,
    /// How many bytes are expected in a second at least.
    pub slowest: u64,
    /// How often a call is tried in all.
    pub attempts: u32,
    /// The wait before the second attempt; it grows threefold.
    pub backoff: Duration,
}

impl Default for S3Options {
    fn default() -> Self {
        Self {
            credentials: Credentials::Chain,
            environment: Environment::default(),
            allow_http: false,
            ca_file: None,
            timeout: Duration::from_secs(20),
            slowest: 64 << 10,
            attempts: 4,
            backoff: Duration::from_millis(100),
        }
    }
}

/// A store in a bucket.
pub struct S3Store {
    url: String,
    prefix: String,
    client: AmazonS3,
    /// Not there only while it is dropped.
    runtime: Option<Runtime>,
    options: S3Options,
    secrets: Vec<Zeroizing<String>>,
    origin: String,
    /// Whether creations are conditional: [`UNKNOWN`], [`YES`] or [`NO`].
    conditional: AtomicU8,
}

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("url", &self.url)
            .field("credentials", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Dropping a runtime waits for it, which is not allowed on a thread of another one.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why one attempt failed.
enum Failure {
    NotFound,
    Exists,
    /// Another creation of the same name is under way.
    Conflict,
    NotImplemented(String),
    NoSpace(String),
    Refused(String),
    /// Trying again may help.
    Again(String),
    /// It does not.
    Wrong(String),
}

impl S3Store {
    /// Prepares the client. Nothing is sent yet.
    pub fn open(location: &S3Location, options: S3Options) -> StoreResult<Self> {
        let url = Location::S3(location.clone()).to_string();
        let refused = |why: String| StoreError::Refused { store: url.clone(), why };
        let found = aws_files::find(&options.credentials, &options.environment).map_err(refused)?;
        let endpoint = location.endpoint.as_deref().or_else(|| options.environment.endpoint());
        let plain = endpoint.is_some_and(|e| e.starts_with("http:"));
        if let Some(endpoint) = endpoint
            && plain
            && !options.allow_http
            && !crate::url::is_loopback(endpoint)
        {
            return Err(refused(format!(
                "{endpoint} is not encrypted; use https, or allow http in the settings"
            )));
        }
        if rustls::crypto::CryptoProvider::get_default().is_none()
            && rustls::crypto::ring::default_provider().install_default().is_err()
        {
            tracing::debug!("another thread chose the provider of TLS");
        }
        let mut client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(options.timeout.min(Duration::from_secs(5)))
            .with_allow_http(plain);
        if let Some(path) = &options.ca_file {
            let pem = std::fs::read(path).map_err(|e| refused(format!("{}: {e}", path.display())))?;
            let certificates = Certificate::from_pem_bundle(&pem);
            for certificate in certificates.map_err(|e| refused(format!("{}: {e}", path.display())))? {
                client = client.with_root_certificate(certificate);
            }
        }
        let region = location.region.clone().or_else(|| found.region.clone());
        let mut builder = found
            .apply(AmazonS3Builder::new())
            .with_bucket_name(&location.bucket)
            .with_region(region.unwrap_or_else(|| "us-east-1".to_owned()))
            .with_virtual_hosted_style_request(!location.path_style.unwrap_or(endpoint.is_some()))
            .with_allow_http(plain)
            .with_client_options(client)
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: 0,
                retry_timeout: options.timeout,
            });
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let client = builder.build().map_err(|e| refused(scrub(&found.secrets(), &e.to_string())))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|e| refused(format!("can't start threads: {e}")))?;
        Ok(Self {
            url,
            prefix: location.prefix.clone(),
            client,
            runtime: Some(runtime),
            options,
            secrets: found.secrets(),
            origin: found.origin,
            conditional: AtomicU8::new(UNKNOWN),
        })
    }

    fn path(&self, name: &str) -> StoreResult<ObjectPath> {
        check_name(&self.url, name)?;
        Ok(self.path_of(name))
    }

    fn path_of(&self, name: &str) -> ObjectPath {
        ObjectPath::from(if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.prefix)
        })
    }

    /// Makes one attempt of at most this time for its bytes.
    fn attempt<T>(&self, bytes: u64, act: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        let time = self.options.timeout + Duration::from_secs(bytes / self.options.slowest.max(1));
        let Some(runtime) = &self.runtime else {
            return Err(Failure::Wrong("it is being closed".to_owned()));
        };
        match runtime.block_on(async { tokio::time::timeout(time, act).await }) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.judge(&error)),
            Err(_) => Err(Failure::Again(format!("no answer in {} s", time.as_secs_f32()))),
        }
    }

    /// Makes attempts until one does not fail, or trying again does not help, or there were enough. Tells `act` how
    /// many there were.
    fn attempts<T>(&self, mut act: impl FnMut(u32) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut attempt = 0;
        let mut wait = self.options.backoff;
        loop {
            match act(attempt) {
                Err(Failure::Again(why)) if attempt + 1 < self.options.attempts => {
                    tracing::debug!(store = self.url, attempt, why, "trying again");
                    std::thread::sleep(wait.mul_f32(jitter()));
                    wait *= 3;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    fn judge(&self, error: &Error) -> Failure {
        let text = error.to_string();
        let status = text
            .find("status code: ")
            .and_then(|at| text.get(at + 13..at + 16))
            .and_then(|digits| digits.parse::<u16>().ok());
        let code = tag(&text, "Code");
        let why = self.words(error, status, code);
        match (error, status, code) {
            (_, _, Some("NoSuchBucket")) => Failure::Refused(why),
            (Error::NotFound { .. }, ..) => Failure::NotFound,
            (_, Some(409), _) => Failure::Conflict,
            (Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }, ..) => {
                Failure::Exists
            }
            (_, Some(507), _)
            | (_, _, Some("XMinioStorageFull" | "QuotaExceeded" | "InsufficientStorage")) => {
                Failure::NoSpace(why)
            }
            (_, Some(501), _) | (_, _, Some("NotImplemented")) => Failure::NotImplemented(why),
            (_, Some(416), _) => Failure::Wrong(why),
            (_, Some(408 | 429), _) | (_, _, Some("SlowDown" | "RequestTimeout")) => Failure::Again(why),
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, ..)
            | (_, Some(300..=499), _) => Failure::Refused(why),
            _ if text.contains("incorrectly configured region") => {
                Failure::Refused(format!("{why} (name the region in the vault's URL: ?region=…)"))
            }
            _ => Failure::Again(why),
        }
    }

    /// An error in few words, without secrets: what the server said, or the cause at the bottom.
    fn words(&self, error: &Error, status: Option<u16>, code: Option<&str>) -> String {
        let text = error.to_string();
        let words = match (status, code) {
            (Some(status), Some(code)) => {
                format!("the server says {status} {code}: {}", tag(&text, "Message").unwrap_or_default())
            }
            (Some(status), None) => format!("the server says {status}"),
            _ => {
                let mut cause: &dyn std::error::Error = error;
                while let Some(next) = cause.source() {
                    cause = next;
                }
                match (error.source(), cause.to_string()) {
                    (Some(_), bottom) if text.contains("error sending request") => {
                        format!("can't reach it: {bottom}")
                    }
                    (_, bottom) => bottom,
                }
            }
        };
        scrub(&self.secrets, &words)
    }

    fn error(&self, op: &'static str, name: &str, failure: Failure) -> StoreError {
        let (store, name) = (self.url.clone(), name.to_owned());
        let failed = |store, name, why| StoreError::Failed { store, op, name, why };
        match failure {
            Failure::NotFound => StoreError::NotFound { store, name },
            Failure::NoSpace(why) => StoreError::NoSpace { store, name, why },
            Failure::Refused(why) | Failure::NotImplemented(why) => {
                let from = &self.origin;
                StoreError::Refused { store, why: format!("{op} {name}: {why} (credentials from {from})") }
            }
            Failure::Exists => failed(store, name, "it exists".to_owned()),
            Failure::Conflict => failed(store, name, "another request is under way".to_owned()),
            Failure::Again(why) | Failure::Wrong(why) => failed(store, name, why),
        }
    }

    fn put(&self, path: &ObjectPath, body: &Bytes, mode: PutMode) -> Result<PutResult, Failure> {
        let payload = PutPayload::from_bytes(body.clone());
        self.attempt(body.len() as u64, self.client.put_opts(path, payload, mode.into())).map_err(|e| match e
        {
            // A PUT finds no object missing, only a bucket.
            Failure::NotFound => Failure::Refused("there is no such bucket".to_owned()),
            e => e,
        })
    }

    fn get(&self, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Bytes, Failure> {
        let length = range.as_ref().map(|r| r.end - r.start);
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let answer = self.attempt(0, self.client.get_opts(path, options))?;
        let expected = answer.range.end - answer.range.start;
        let body = self.attempt(expected, answer.bytes())?;
        if body.len() as u64 != expected {
            return Err(Failure::Again(format!("{} bytes of {expected} came", body.len())));
        }
        match length {
            Some(length) if length != expected => {
                Err(Failure::Wrong(format!("{length} bytes were asked for, and it has {expected} there")))
            }
            _ => Ok(body),
        }
    }

    fn head(&self, path: &ObjectPath) -> Result<Option<u64>, Failure> {
        match self.attempt(0, self.client.head(path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Failure::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Finds out whether the store heeds the condition of a creation, once: one that ignores it would replace objects.
    fn is_conditional(&self) -> Result<bool, Failure> {
        match self.conditional.load(Ordering::Relaxed) {
            YES => return Ok(true),
            NO => return Ok(false),
            _ => {}
        }
        let id = unique().map_err(|e| Failure::Wrong(e.to_string()))?;
        let path = self.path_of(&format!("probe/{id}"));
        let body = Bytes::from_static(b"everhold");
        let create = || self.attempts(|_| self.put(&path, &body, PutMode::Create));
        let answer = match create() {
            Err(Failure::NotImplemented(_)) => Ok(false),
            // It met what an earlier attempt at it did.
            Err(Failure::Exists) => Ok(true),
            Ok(_) | Err(Failure::Conflict) => match create() {
                Ok(_) => Ok(false),
                Err(Failure::Exists | Failure::Conflict) => Ok(true),
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        if let Err(Failure::Refused(why) | Failure::Again(why)) = self.attempts(|_| self.remove(&path)) {
            tracing::debug!(store = self.url, why, "can't delete {path}");
        }
        let conditional = answer?;
        if !conditional {
            tracing::warn!(
                store = self.url,
                "the store has no conditional creation: two writers at once are not noticed"
            );
        }
        self.conditional.store(if conditional { YES } else { NO }, Ordering::Relaxed);
        Ok(conditional)
    }

    fn remove(&self, path: &ObjectPath) -> Result<(), Failure> {
        match self.attempt(0, self.client.delete(path)) {
            Err(Failure::NotFound) => Ok(()),
            other => other,
        }
    }

    /// One attempt at a creation. `uncertain`: an earlier one may have done it.
    fn try_create(
        &self,
        path: &ObjectPath,
        body: &Bytes,
        conditional: bool,
        uncertain: bool,
    ) -> Result<Created, Failure> {
        let put = if conditional {
            self.put(path, body, PutMode::Create)
        } else if self.head(path)?.is_some() {
            Err(Failure::Exists)
        } else {
            self.put(path, body, PutMode::Overwrite)
        };
        match put {
            Ok(_) => Ok(Created::New),
            // Who is under way may fail; only an object that is there exists.
            Err(Failure::Conflict) if self.head(path)?.is_none() => {
                Err(Failure::Again("another creation of it is under way".to_owned()))
            }
            Err(Failure::Exists | Failure::Conflict) if uncertain => match self.get(path, None) {
                Ok(there) => Ok(if there == *body { Created::New } else { Created::Exists }),
                Err(Failure::NotFound) => Err(Failure::Again("it came and went".to_owned())),
                Err(e) => Err(e),
            },
            Err(Failure::Exists | Failure::Conflict) => Ok(Created::Exists),
            Err(e) => Err(e),
        }
    }

    fn keys(&self, prefix: &str, most: usize) -> Result<Vec<Object>, Failure> {
        let path = self.path_of(prefix.trim_end_matches('/'));
        let skip = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        // A page has a thousand, and takes a second at worst; the number of pages is not known.
        let bytes = self.options.slowest.saturating_mul(600);
        let list =
            self.client.list((!path.as_ref().is_empty()).then_some(&path)).take(most).try_collect::<Vec<_>>();
        let found = self.attempt(bytes, list)?;
        let object = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().get(skip..).unwrap_or_default().to_owned();
            Object { name, size: meta.size }
        };
        Ok(found.into_iter().map(object).collect())
    }
}

impl Store for S3Store {
    fn url(&self) -> &str {
        &self.url
    }

    fn create(&self, name: &str, body: Bytes) -> StoreResult<Created> {
        let path = self.path(name)?;
        let conditional = self.is_conditional().map_err(|e| self.error("create", name, e))?;
        self.attempts(|attempt| self.try_create(&path, &body, conditional, attempt > 0))
            .map_err(|e| self.error("create", name, e))
    }

    fn replace(&self, name: &str, body: Bytes) -> StoreResult<()> {
        let path = self.path(name)?;
        self.attempts(|_| self.put(&path, &body, PutMode::Overwrite).map(|_| ()))
            .map_err(|e| self.error("replace", name, e))
    }

    fn read(&self, name: &str, range: Option<Range<u64>>) -> StoreResult<Bytes> {
        let path = self.path(name)?;
        if let Some(range) = range.as_ref().filter(|r| r.start >= r.end) {
            // There is no way to ask for nothing.
            let size = self.size(name)?;
            let missing = || StoreError::NotFound { store: self.url.clone(), name: name.to_owned() };
            check_range(&self.url, name, range, size.ok_or_else(missing)?)?;
            return Ok(Bytes::new());
        }
        self.attempts(|_| self.get(&path, range.clone())).map_err(|e| self.error("read", name, e))
    }

    fn size(&self, name: &str) -> StoreResult<Option<u64>> {
        let path = self.path(name)?;
        self.attempts(|_| self.head(&path)).map_err(|e| self.error("look for", name, e))
    }

    fn list(&self, prefix: &str) -> StoreResult<Vec<Object>> {
        check_prefix(&self.url, prefix)?;
        let listed = self.attempts(|_| self.keys(prefix, usize::MAX));
        let mut objects = listed.map_err(|e| self.error("list", prefix, e))?;
        objects.retain(|o| check_name(&self.url, &o.name).is_ok());
        objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    fn is_empty(&self, ignoring: &[&str]) -> StoreResult<bool> {
        let listed = self.attempts(|_| self.keys("", 1000)).map_err(|e| self.error("list", "", e))?;
        Ok(listed.iter().all(|o| ignoring.iter().any(|p| o.name.starts_with(p))))
    }

    fn delete(&self, name: &str) -> StoreResult<()> {
        let path = self.path(name)?;
        self.attempts(|_| self.remove(&path)).map_err(|e| self.error("delete", name, e))
    }

    fn abilities(&self) -> StoreResult<Abilities> {
        self.conditional.store(UNKNOWN, Ordering::Relaxed);
        let failed = |e| self.error("probe", "", e);
        let conditional = self.is_conditional().map_err(failed)?;
        let path = self.path_of(&format!("probe/{}", unique()?));
        let put = || self.put(&path, &Bytes::from_static(b"versions"), PutMode::Overwrite);
        let version = self.attempts(|_| put()).map_err(failed)?.version;
        let mut notes = vec!["whether objects can be locked is in the bucket's settings".to_owned()];
        let deleted = self
            .attempts(|_| self.remove(&path))
            .map_err(|e| self.error("delete", "an object of the probe", e));
        if let Err(error) = deleted {
            notes.push(format!("deleting does not work, so nothing is ever thinned out: {error}"));
        }
        Ok(Abilities {
            conditional_put: if conditional { Ability::Yes } else { Ability::No },
            versions: if version.is_some_and(|v| v != "null") { Ability::Yes } else { Ability::No },
            object_lock: Ability::Unknown,
            notes,
        })
    }
}

/// The text of the first element of this name in an answer of the server.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(inside, _)| inside)
}

/// Takes secrets out of a text, and what is too long.
fn scrub(secrets: &[Zeroizing<String>], text: &str) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|s| !s.is_empty()) {
        text = text.replace(secret.as_str(), "…");
    }
    match text.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A factor between a half and one and a half.
fn jitter() -> f32 {
    use std::hash::{BuildHasher, Hasher};
    // Every hasher of the standard library has random keys of its own.
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    0.5 + (random % 1000) as f32 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_no_secrets_and_end() {
        let secrets = ["hunter2", ""].map(|s| Zeroizing::new(s.to_owned()));
        assert_eq!(scrub(&secrets, "key hunter2 and hunter2"), "key … and …");
        assert_eq!(scrub(&secrets, &"ü".repeat(1000)).chars().count(), 401);
        assert_eq!(tag("<Error><Code>SlowDown</Code><Message>", "Code"), Some("SlowDown"));
        assert_eq!(tag("<Error><Code>SlowDown</Code><Message>", "Message"), None);
    }
}
