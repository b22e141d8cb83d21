//! A spinner for what takes longer than a second, and a bar for what is known how far it is; on a terminal.

use super::human::size;
use super::plain;
use api::Client;
use api::v1::Work;
use indicatif::{ProgressBar, ProgressStyle};
use std::future::Future;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

/// Shorter work needs no words.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for `work`; says what it waits for and how long already, once that is worth saying.
pub async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let bar = ProgressBar::new_spinner().with_elapsed(PATIENCE).with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let done = work.await;
    bar.finish_and_clear();
    done
}

/// How often the daemon is asked how far it is.
const ASKED: Duration = Duration::from_millis(500);

/// As [`waiting`] for long work on `volume`, and shows how far it is.
pub async fn following<T>(what: &str, client: &Client, volume: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(PATIENCE) => {}
    }
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let bar = ProgressBar::new(0).with_elapsed(PATIENCE).with_message(what.to_owned());
    let style = |template: &str| {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
    };
    style("{spinner} {msg} ({elapsed})");
    bar.enable_steady_tick(Duration::from_millis(100));
    let mut known = false;
    let done = loop {
        let look = async {
            tokio::time::sleep(ASKED).await;
            // A bar is not worth an error of its own: what the work itself says counts.
            client.progress().await.ok()
        };
        tokio::select! {
            done = &mut work => break done,
            progress = look => {
                let works = progress.map(|progress| progress.work).unwrap_or_default();
                let work = works.into_iter().find(|work| work.volume == volume && work.ended.is_none());
                let Some(work) = work.filter(|work| work.total > 0) else { continue };
                if !known {
                    known = true;
                    style("{spinner} {msg} [{bar:30}] {percent}% ({elapsed})");
                }
                bar.set_length(work.total);
                bar.set_position(work.done);
                bar.set_message(format!("{what}, {}", far(&work)));
            }
        }
    };
    bar.finish_and_clear();
    done
}

/// Work in stages, some of which are known how far they are. On a terminal one line that changes; elsewhere nothing.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// Nothing yet.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self(bar)
    }

    fn style(&self, template: &str) {
        if let (Some(bar), Ok(style)) = (&self.0, ProgressStyle::with_template(template)) {
            bar.set_style(style.progress_chars("=> "));
        }
    }

    /// What begins now.
    pub fn stage(&self, what: &str) {
        self.style("{spinner} {msg} ({elapsed})");
        if let Some(bar) = &self.0 {
            bar.unset_length();
            bar.set_message(plain(what));
        }
    }

    /// How far that is, in bytes.
    pub fn far(&self, done: u64, total: u64) {
        let Some(bar) = &self.0 else { return };
        if bar.length() != Some(total) {
            self.style("{spinner} {msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec} ({elapsed})");
            bar.set_length(total);
        }
        bar.set_position(done);
    }

    /// It is over.
    pub fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// `1.5GiB of 4GiB, 300MiB/s`, and what is in the way.
pub fn far(work: &Work) -> String {
    if work.total == 0 {
        return work.trouble.as_deref().map_or_else(|| "beginning".to_owned(), plain);
    }
    let mut text =
        format!("{} of {}, {}/s", size(Some(work.done)), size(Some(work.total)), size(Some(work.rate)));
    if work.resumed > 0 {
        text.push_str(&format!(", gone on with from {}", size(Some(work.resumed))));
    }
    if let Some(trouble) = &work.trouble {
        text.push_str(&format!("; waits: {}", plain(trouble)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_far_it_is() {
        let mut work = Work {
            verb: "restore".to_owned(),
            volume: "data".to_owned(),
            id: String::new(),
            point: 7,
            since: jiff::Timestamp::UNIX_EPOCH,
            done: 1 << 30,
            total: 4 << 30,
            resumed: 0,
            written: 0,
            fetched: 0,
            rate: 100 << 20,
            ended: None,
            trouble: None,
        };
        assert_eq!(far(&work), "1GiB of 4GiB, 100MiB/s");
        work.resumed = 512 << 20;
        work.trouble = Some("no\nvault".to_owned());
        assert_eq!(far(&work), "1GiB of 4GiB, 100MiB/s, gone on with from 512MiB; waits: no\u{fffd}vault");
        work.total = 0;
        assert_eq!(far(&work), "no\u{fffd}vault");
    }
}
