//! Where a vault is: `file:///path`, or `s3://bucket/prefix` with `endpoint`, `region` and `path-style` as parameters.
//!
//! A location never holds a secret.

use crate::store::{DirOptions, DirStore, Reserve, S3Options, S3Store, Store, StoreResult};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A place for a vault. In JSON it is its URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Location {
    /// `file:///path`
    Dir(PathBuf),
    /// `s3://bucket/prefix`
    S3(S3Location),
}

/// A place in a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// What names begin with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The server, as `https://host:port`; AWS, or what the environment says, if there is none.
    pub endpoint: Option<String>,
    /// The region; if there is none, what the environment says.
    pub region: Option<String>,
    /// Whether the bucket is in the path and not in the host's name; if not said, it is with an endpoint.
    pub path_style: Option<bool>,
}

/// Why a text is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is not the URL of a vault: {why}")]
pub struct LocationError {
    /// The text; not shown where it may hold a password.
    pub url: String,
    /// In words.
    pub why: String,
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Make a directory that is missing.
    pub create: bool,
    /// What must stay free on the file system of a directory.
    pub reserve: Reserve,
    /// How to reach a bucket.
    pub s3: S3Options,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { create: false, reserve: Reserve::Bytes(0), s3: S3Options::default() }
    }
}

/// Opens the store at a location.
pub fn open(location: &Location, options: &OpenOptions) -> StoreResult<Box<dyn Store>> {
    Ok(match location {
        Location::Dir(path) => {
            let options = DirOptions { create: options.create, reserve: options.reserve };
            Box::new(DirStore::open(path, options)?)
        }
        Location::S3(place) => Box::new(S3Store::open(place, options.s3.clone())?),
    })
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(url: &str) -> Result<Self, LocationError> {
        let wrong = |why: &str| LocationError { url: url.to_owned(), why: why.to_owned() };
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(wrong("a path of a directory begins with a slash, as in file:///srv/vault"));
            }
            let path = decode(path).ok_or_else(|| wrong("a % must be followed by two hexadecimal digits"))?;
            if path.contains('\0') || path.split('/').any(|part| part == ".." || part == ".") {
                return Err(wrong("the path may not contain . or .."));
            }
            return Ok(Self::Dir(Path::new(&path).components().collect()));
        }
        if let Some(rest) = url.strip_prefix("s3://") {
            return S3Location::parse(rest).map(Self::S3).map_err(|why| match why {
                // Do not repeat what may be a password.
                Wrong::Secret(why) => LocationError { url: "s3://…".to_owned(), why: why.to_owned() },
                Wrong::Plain(why) => LocationError { url: url.to_owned(), why },
            });
        }
        Err(match url.split_once("://") {
            _ if url.starts_with('/') => wrong(&format!("write file://{url}")),
            Some((scheme, _)) => {
                wrong(&format!("{scheme}: is not known; there are file:///path and s3://bucket/prefix"))
            }
            None => wrong("write file:///path or s3://bucket/prefix"),
        })
    }
}

enum Wrong {
    Plain(String),
    Secret(&'static str),
}

impl S3Location {
    fn parse(rest: &str) -> Result<Self, Wrong> {
        let plain = |why: &str| Wrong::Plain(why.to_owned());
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains('@') {
            return Err(Wrong::Secret(
                "keys do not belong into a URL; name a file with them in the settings",
            ));
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(fine) {
            return Err(plain("the bucket must be 3 to 63 letters, digits, hyphens, dots"));
        }
        let prefix = prefix.trim_end_matches('/');
        let part = |p: &str| !p.is_empty() && p != "." && p != ".." && p.chars().all(fine);
        if !prefix.is_empty() && (prefix.len() > 255 || !prefix.split('/').all(part)) {
            return Err(plain(
                "a prefix is parts of letters, digits, hyphens, dots and underscores between slashes",
            ));
        }
        let mut location = Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            path_style: None,
        };
        for parameter in parameters.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, "true"));
            let value =
                decode(value).ok_or_else(|| plain("a % must be followed by two hexadecimal digits"))?;
            match name {
                "endpoint" => location.endpoint = Some(check_endpoint(&value)?),
                "region" if !value.is_empty() && value.chars().all(fine) => location.region = Some(value),
                "region" => return Err(plain("a region is like eu-central-1")),
                "path-style" => {
                    let value = value.parse().map_err(|_| plain("path-style is true or false"))?;
                    location.path_style = Some(value);
                }
                _ => {
                    return Err(Wrong::Secret(
                        "it has a parameter that is none of endpoint, region, path-style",
                    ));
                }
            }
        }
        Ok(location)
    }
}

/// Checks that an endpoint is a scheme, a host and perhaps a port.
fn check_endpoint(endpoint: &str) -> Result<String, Wrong> {
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let host = host.map(|h| h.trim_end_matches('/')).unwrap_or_default();
    if host.contains('@') {
        return Err(Wrong::Secret("keys do not belong into a URL; name a file with them in the settings"));
    }
    if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
        return Err(Wrong::Plain("an endpoint is like https://minio.example:9000".to_owned()));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// Whether an endpoint is on this machine.
pub(crate) fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.split([':', '/']).next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => f.write_str(&file_url(path)),
            Self::S3(place) => {
                write!(f, "s3://{}", place.bucket)?;
                if !place.prefix.is_empty() {
                    write!(f, "/{}", place.prefix)?;
                }
                let style = place.path_style.map(|s| s.to_string());
                let parameters =
                    [("endpoint", &place.endpoint), ("region", &place.region), ("path-style", &style)];
                let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
                for (i, (name, value)) in given.enumerate() {
                    write!(f, "{}{name}={}", if i == 0 { '?' } else { '&' }, encode(value))?;
                }
                Ok(())
            }
        }
    }
}

impl TryFrom<String> for Location {
    type Error = LocationError;

    fn try_from(url: String) -> Result<Self, LocationError> {
        url.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

/// The URL of a directory.
pub(crate) fn file_url(path: &Path) -> String {
    format!("file://{}", encode(&path.to_string_lossy()))
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'/'
            | b':'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'['
            | b']'
            | b'@'
            | b'+'
            | b','
            | b'=' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |b: u8| char::from(b).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Location, String> {
        url.parse().map_err(|e: LocationError| e.to_string())
    }

    #[test]
    fn urls_and_locations_are_the_same() {
        for url in [
            "file:///srv/vault",
            "file:///mnt/my%20disk/100%25",
            "s3://bucket",
            "s3://bucket/a/b_c",
            "s3://bucket/a?endpoint=http://127.0.0.1:9000&region=eu-central-1&path-style=true",
            "s3://bucket?endpoint=https://[::1]:9000",
        ] {
            let location = parse(url).unwrap();
            assert_eq!(location.to_string(), url);
            let json = serde_json::to_string(&location).unwrap();
            assert_eq!(json, format!("\"{url}\""));
            assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), location);
        }
        assert_eq!(parse("file:///a//b/").unwrap(), Location::Dir("/a/b".into()));
        assert_eq!(parse("s3://bucket/a/?path-style").unwrap().to_string(), "s3://bucket/a?path-style=true");
    }

    #[test]
    fn errors_say_what_to_write() {
        for (url, says) in [
            ("/srv/vault", "write file:///srv/vault"),
            ("srv", "write file:///path or s3://bucket/prefix"),
            ("file://host/path", "begins with a slash"),
            ("file:///a/../b", ". or .."),
            ("file:///a%2", "hexadecimal"),
            ("http://x/y", "http: is not known"),
            ("s3:///x", "bucket"),
            ("s3://bucket/a//b", "prefix"),
            ("s3://bucket/a?region=", "region"),
            ("s3://bucket/a?endpoint=host:9000", "https://minio.example:9000"),
            ("s3://bucket/a?endpoint=https://host/path", "https://minio.example:9000"),
            ("s3://bucket/a?path-style=1", "true or false"),
        ] {
            let error = parse(url).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn a_secret_in_a_url_is_not_repeated() {
        for url in [
            "s3://AKIA:hunter2@bucket/x",
            "s3://bucket/x?secret_key=hunter2",
            "s3://bucket/x?endpoint=https://u:hunter2@h",
        ] {
            let error = parse(url).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn loopback_is_told() {
        for (endpoint, is) in [
            ("http://127.0.0.1:9000", true),
            ("http://localhost", true),
            ("http://[::1]:9000", true),
            ("http://127.0.0.1.example.org", false),
            ("http://10.0.0.1:9000", false),
        ] {
            assert_eq!(is_loopback(endpoint), is, "{endpoint}");
        }
    }
}
