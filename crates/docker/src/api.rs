//! The Engine API for work on whole containers: calls that block, for threads that may wait.
//!
//! Documents go in and out as JSON values, not as closed types: what a newer engine says of a container, and nobody here
//! has heard of, must be in the container that is made from it.

use crate::client::{ApiError, Client, encode, nothing, read};
use base64::Engine;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::{Body, Bytes, Frame, Incoming};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;

/// A question about what is there. An engine that is asked for a volume it does not know asks all of its plugins, and waits for
/// half a minute for each that is gone.
const QUESTION: Duration = Duration::from_secs(120);
/// Creating, stopping, renaming: these may wait for a plugin, or for a container that takes its time.
const ACT: Duration = Duration::from_secs(150);
/// A stream of which nothing comes for so long is given up. `docker save` of old engines writes all to disk first.
const STREAM: Duration = Duration::from_secs(3600);
/// What is kept of the output of a program that runs in a container.
const LONGEST_OUTPUT: usize = 64 << 10;

type Result<T> = std::result::Result<T, ApiError>;

/// One Docker Engine, asked by threads that may wait.
#[derive(Debug)]
pub struct Api {
    client: Arc<Client>,
    runtime: Runtime,
}

/// What an engine says of one path in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its size in bytes.
    pub size: u64,
    /// When its content changed.
    pub mtime: Option<jiff::Timestamp>,
}

/// What became of a program that was run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit status.
    pub status: i64,
    /// The end of what it printed, on standard output and standard error.
    pub output: String,
}

impl Api {
    /// The engine on this socket; nothing is asked yet.
    ///
    /// # Errors
    /// No thread or no descriptors left for the connections.
    pub fn new(socket: PathBuf) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { client: Arc::new(Client::new(socket)), runtime })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.client.socket
    }

    fn in_time<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(limit, work).await {
                Ok(answer) => answer,
                Err(_) => Err(ApiError::Silent { socket: self.client.socket.clone(), after: limit }),
            }
        })
    }

    /// The answer to `GET path`.
    ///
    /// # Errors
    /// No engine, no answer within 120 s, or a refusal.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.in_time(QUESTION, async {
            read(self.client.call(Method::GET, path, None, nothing()).await?, path).await
        })
    }

    /// As [`Api::get`]; `None` where the engine knows no such thing.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match self.get(path) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `POST path` with a document; the answer's document, or null where there is none.
    ///
    /// # Errors
    /// No engine, no answer within 150 s, or a refusal.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.in_time(ACT, async {
            let sent = crate::client::document(body);
            let answer = self.client.call(Method::POST, path, Some("application/json"), sent).await?;
            document(answer.into_body(), path).await
        })
    }

    /// `POST path` without a document. That it is so already is fine.
    ///
    /// # Errors
    /// As [`Api::post`].
    pub fn act(&self, path: &str) -> Result<()> {
        match self.in_time(ACT, self.client.call(Method::POST, path, None, nothing())) {
            Ok(_) | Err(ApiError::Refused { status: 304, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `DELETE path`. That there is no such thing is fine.
    ///
    /// # Errors
    /// As [`Api::post`].
    pub fn delete(&self, path: &str) -> Result<()> {
        match self.in_time(ACT, self.client.call(Method::DELETE, path, None, nothing())) {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the engine says of a path in a container; `None` where there is no such path. Symbolic links are not followed.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub fn stat(&self, container: &str, path: &Path) -> Result<Option<Stat>> {
        let path =
            format!("/containers/{}/archive?path={}", encode(container), encode(&path.to_string_lossy()));
        match self.in_time(QUESTION, self.client.call(Method::HEAD, &path, None, nothing())) {
            Ok(answer) => {
                let header = answer.headers().get("X-Docker-Container-Path-Stat");
                let stat = header.and_then(|header| stat(header.as_bytes()));
                stat.map(Some).ok_or_else(|| ApiError::Strange {
                    path,
                    why: "no X-Docker-Container-Path-Stat".to_owned(),
                })
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The body of the answer to `GET path`, as it comes.
    ///
    /// # Errors
    /// No engine, or a refusal. The stream itself fails when the engine goes away.
    pub fn download(&self, path: &str) -> Result<Download> {
        let answer = self.in_time(STREAM, self.client.call(Method::GET, path, None, nothing()))?;
        Ok(Download { body: answer.into_body(), runtime: self.runtime.handle().clone(), rest: Bytes::new() })
    }

    /// `POST` or `PUT path` with a tar that is read as it is sent; what the engine says to it.
    ///
    /// # Errors
    /// No engine, a refusal, or `content` can't be read.
    pub fn upload(&self, method: Method, path: &str, mut content: impl Read) -> Result<Vec<u8>> {
        let (sender, pieces) = mpsc::channel(4);
        let body = Pieces(pieces);
        let (client, target) = (Arc::clone(&self.client), path.to_owned());
        let answer = self.runtime.spawn(async move {
            let answer = client.call(method, &target, Some("application/x-tar"), body.boxed()).await?;
            bytes(answer.into_body(), &target).await
        });
        let broken = match pump(&sender, &mut content) {
            Ok(()) => false,
            // If nobody takes it any more, the engine has said why.
            Err(error) => sender.blocking_send(Err(error)).is_ok(),
        };
        drop(sender);
        let strange = |why: String| ApiError::Strange { path: path.to_owned(), why };
        match self.in_time(STREAM, async { answer.await.map_err(|error| strange(error.to_string()))? }) {
            Err(ApiError::Unreachable { source, .. }) if broken => Err(strange(source.to_string())),
            other => other,
        }
    }

    /// Runs a program in a container, to its end.
    ///
    /// # Errors
    /// No engine, a refusal (the container does not run), or no end within `limit`: the program goes on then.
    pub fn execute(
        &self,
        container: &str,
        command: &[String],
        user: Option<&str>,
        limit: Duration,
    ) -> Result<Executed> {
        let mut body = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": command });
        if let Some(user) = user {
            body["User"] = user.into();
        }
        let made = self.post(&format!("/containers/{}/exec", encode(container)), &body)?;
        let id = made["Id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/exec/{id}/start");
        let output = self.in_time(limit, async {
            let sent = crate::client::document(&json!({ "Detach": false, "Tty": false }));
            let answer = self.client.call(Method::POST, &path, Some("application/json"), sent).await?;
            output(answer.into_body(), &path).await
        })?;
        let ended: Value = self.get(&format!("/exec/{id}/json"))?;
        Ok(Executed { status: ended["ExitCode"].as_i64().unwrap_or(-1), output })
    }
}

/// A body whose pieces come from another thread. Its end is the end of the queue, and so is what went wrong: `http_body_util`'s
/// channel has them beside the queue, and ends a body whose last pieces were sent between its two looks.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn pump(sender: &mpsc::Sender<io::Result<Bytes>>, content: &mut impl Read) -> io::Result<()> {
    loop {
        let mut block = vec![0; 256 << 10];
        let read = match content.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        block.truncate(read);
        // The engine has answered already, or hung up: its answer says why.
        if sender.blocking_send(Ok(Bytes::from(block))).is_err() {
            return Ok(());
        }
    }
}

/// The JSON in base64 that engines put into a header. The mode is Go's (`io/fs.FileMode`), whose highest bit is "directory".
fn stat(header: &[u8]) -> Option<Stat> {
    let json: Value =
        serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(header).ok()?).ok()?;
    Some(Stat {
        is_dir: json["mode"].as_u64()? & (1 << 31) != 0,
        size: json["size"].as_u64().unwrap_or_default(),
        mtime: json["mtime"].as_str().and_then(|mtime| mtime.parse().ok()),
    })
}

async fn bytes(body: Incoming, path: &str) -> Result<Vec<u8>> {
    let strange = |why: String| ApiError::Strange { path: path.to_owned(), why };
    let body = http_body_util::Limited::new(body, LONGEST_OUTPUT << 4);
    Ok(body.collect().await.map_err(|error| strange(error.to_string()))?.to_bytes().to_vec())
}

async fn document(body: Incoming, path: &str) -> Result<Value> {
    let bytes = bytes(body, path).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    // Some answers are plain words ("OK").
    Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

/// The end of both streams of a program, without the frames in which the engine sends them: one byte which stream, three of
/// nothing, four with the length (big endian), then as many bytes.
async fn output(mut body: Incoming, path: &str) -> Result<String> {
    let strange = |why: String| ApiError::Strange { path: path.to_owned(), why };
    let (mut raw, mut text) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| strange(error.to_string()))?;
        raw.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        unframe(&mut raw, &mut text);
        let surplus = text.len().saturating_sub(LONGEST_OUTPUT);
        text.drain(..surplus);
    }
    Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
}

/// Moves what is complete in `raw` to `text`.
fn unframe(raw: &mut Vec<u8>, text: &mut Vec<u8>) {
    let mut done = 0;
    while let Some((head, rest)) = raw[done..].split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some(part) = rest.get(..length) else { break };
        text.extend_from_slice(part);
        done += 8 + length;
    }
    raw.drain(..done);
}

/// A body that is read as it comes.
#[derive(Debug)]
pub struct Download {
    body: Incoming,
    runtime: Handle,
    rest: Bytes,
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let frame =
                self.runtime.block_on(async { tokio::time::timeout(STREAM, self.body.frame()).await });
            match frame {
                Ok(Some(Ok(frame))) => self.rest = frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => return Err(io::Error::other(error)),
                Ok(None) => return Ok(0),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let part = self.rest.split_to(self.rest.len().min(into.len()));
        into[..part.len()].copy_from_slice(&part);
        Ok(part.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_off_wherever_they_are_cut() {
        let framed = [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"out", &[2, 0, 0, 0, 0, 0, 0, 4], b"err\n"].concat();
        for cut in 0..framed.len() {
            let (mut raw, mut text) = (framed[..cut].to_vec(), Vec::new());
            unframe(&mut raw, &mut text);
            raw.extend_from_slice(&framed[cut..]);
            unframe(&mut raw, &mut text);
            assert_eq!((&text[..], raw.len()), (&b"outerr\n"[..], 0), "cut at {cut}");
        }
    }

    #[test]
    fn a_path_is_described_in_a_header() {
        let header = base64::engine::general_purpose::STANDARD.encode(
            r#"{"name":"etc","size":4096,"mode":2147484141,"mtime":"2026-01-02T03:04:05.6+02:00","linkTarget":""}"#,
        );
        let found = stat(header.as_bytes()).unwrap();
        assert_eq!((found.is_dir, found.size), (true, 4096));
        assert_eq!(found.mtime.unwrap().to_string(), "2026-01-02T01:04:05.6Z");
        assert_eq!(stat(b"nonsense"), None);
    }

    /// An engine of this version that says what it was asked, and how many bytes it was sent.
    fn echoing_engine(path: &Path, version: &'static str) {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                loop {
                    let (mut line, mut head) = (String::new(), String::new());
                    while reader.read_line(&mut line).unwrap_or(0) > 2 {
                        head.push_str(&std::mem::take(&mut line));
                    }
                    if head.is_empty() {
                        break;
                    }
                    let mut bytes = 0;
                    while head.contains("chunked") {
                        line.clear();
                        reader.read_line(&mut line).unwrap();
                        let size = usize::from_str_radix(line.trim(), 16).unwrap();
                        reader.read_exact(&mut vec![0; size + 2]).unwrap();
                        bytes += size;
                        if size == 0 {
                            break;
                        }
                    }
                    let asked = head.lines().next().unwrap();
                    let said = json!({ "ApiVersion": version, "bytes": bytes, "asked": asked }).to_string();
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len());
                    reader.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            }
        });
    }

    /// Reads one byte at a time, so that the last pieces come close together.
    struct Slowly<'a>(&'a [u8]);

    impl Read for Slowly<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let some = into.len().min(1);
            self.0.read(&mut into[..some])
        }
    }

    #[test]
    fn an_engine_is_asked_in_the_older_of_both_versions() {
        for (version, agreed) in [("1.24", "1.24"), ("1.41", "1.41"), ("1.51", "1.51"), ("1.99", "1.51")] {
            let directory = tempfile::tempdir().unwrap();
            let socket = directory.path().join("docker.sock");
            echoing_engine(&socket, version);
            let said: Value = Api::new(socket).unwrap().get("/info").unwrap();
            assert_eq!(said["asked"], format!("GET /v{agreed}/info HTTP/1.1"));
        }
    }

    #[test]
    fn all_of_an_upload_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        echoing_engine(&socket, "1.41");
        let api = Api::new(socket).unwrap();
        for _ in 0..200 {
            let said = api.upload(Method::POST, "/images/load", Slowly(b"twelve bytes")).unwrap();
            let said: Value = serde_json::from_slice(&said).unwrap();
            assert_eq!(said["bytes"], 12);
        }
    }

    #[test]
    fn no_piece_of_a_body_is_lost_at_its_end() {
        let runtime = Runtime::new().unwrap();
        for _ in 0..10_000 {
            let (sender, pieces) = mpsc::channel(4);
            let sending = std::thread::spawn(move || pump(&sender, &mut Slowly(b"twelve bytes")));
            let body = runtime.block_on(Pieces(pieces).collect()).unwrap().to_bytes();
            sending.join().unwrap().unwrap();
            assert_eq!(&body[..], b"twelve bytes");
        }
    }

    #[test]
    fn no_engine_is_an_error_in_words() {
        let api = Api::new("/nowhere/docker.sock".into()).unwrap();
        for error in [
            api.get::<Value>("/info").unwrap_err(),
            api.act("/containers/x/pause").unwrap_err(),
            api.upload(Method::POST, "/images/load", &b"tar"[..]).unwrap_err(),
            api.download("/images/x/get").unwrap_err(),
        ] {
            assert!(error.to_string().contains("no Docker Engine answers on /nowhere"), "{error}");
        }
    }
}
