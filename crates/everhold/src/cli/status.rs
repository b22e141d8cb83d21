//! `everhold status`

use super::vault::standing;
use super::{Outcome, Session};
use crate::output::human::{size, span, time};
use crate::output::progress::{far, waiting};
use crate::output::{Tone, plain};
use api::v1::{ProtectionStatus, VaultState};
use engine::{Clock, SystemClock};
use std::process::ExitCode;

/// The daemon at a glance.
pub async fn run(session: &Session) -> Outcome {
    let status = waiting("asking the daemon", session.client.status()).await?;
    let protection = session.client.protection().await?;
    let progress = session.client.progress().await?;
    session.out.show(&status, |out| {
        let up = span(status.started, SystemClock.now());
        let line = |key: &str, value: String| {
            out.line(&format!("{} {value}", out.tone(&format!("{key:<10}"), Tone::Head)))
        };
        line(
            "daemon",
            format!(
                "everhold {}, pid {}, up {up} (since {})",
                status.version,
                status.pid,
                time(status.started)
            ),
        );
        line(
            "volumes",
            format!("{} ({} attached), {} in the trash", status.volumes, status.attached, status.trashed),
        );
        line("state", status.state.clone());
        for vault in &status.vaults {
            let tone = match vault.state {
                VaultState::Ok | VaultState::ReadOnly | VaultState::Opening => Tone::Good,
                VaultState::Unreachable | VaultState::Refused | VaultState::Failed => Tone::Bad,
            };
            line("vault", format!("{} ({}): {}", vault.name, vault.url, out.tone(&standing(vault), tone)));
            for text in vault.problem.iter().chain(&vault.warning) {
                line("", out.tone(&plain(text), Tone::Warn));
            }
        }
        for volume in &protection.volumes {
            let (text, tone) = protected(volume);
            line("history", format!("{}: {}", volume.name, out.tone(&text, tone)));
        }
        for work in progress.work.iter().filter(|work| work.ended.is_none()) {
            let tone = if work.trouble.is_some() { Tone::Warn } else { Tone::Good };
            let text = format!("{} of cut #{}: {}", work.verb, work.point, far(work));
            line("at work", format!("{}: {}", work.volume, out.tone(&text, tone)));
        }
        if !protection.unprotected.is_empty() {
            let text = format!("{} (`everhold protect VOLUME`)", protection.unprotected.join(", "));
            line("no history", out.tone(&text, Tone::Warn));
        }
        for fenced in &status.fenced {
            let text = format!("{}: {}", fenced.name, plain(&fenced.reason));
            line("fenced", out.tone(&text, Tone::Bad));
        }
        for pool in &status.held_pools {
            let text = format!(
                "the pool {pool} is full: writers wait; free space, or `everhold pool release {pool}`"
            );
            line("held", out.tone(&text, Tone::Bad));
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// How the history of one volume is doing, in one line.
fn protected(volume: &ProtectionStatus) -> (String, Tone) {
    let now = SystemClock.now();
    let mut words = vec![match (volume.newest_cut, volume.newest_time) {
        (Some(cut), Some(at)) => format!("newest durable cut #{cut}, {} old", span(at, now)),
        _ => "no durable cut yet".to_owned(),
    }];
    if volume.waiting > 0 {
        words.push(format!("{} wait for the vault ({})", volume.waiting, size(Some(volume.waiting_bytes))));
    }
    if let Some(since) = volume.behind_since {
        words.push(format!("behind since {}", time(since)));
    }
    if let Some(at) = volume.verified {
        let found = if volume.verified_whole == Some(true) { "whole" } else { "DAMAGED" };
        words.push(format!("verified {} ago: {found}", span(at, now)));
    }
    if volume.method != "tracking" {
        words.push(plain(&volume.method));
    }
    if let Some(trouble) = &volume.trouble {
        words.push(plain(trouble));
    }
    let bad = volume.trouble.is_some() || volume.verified_whole == Some(false);
    let tone = if bad {
        Tone::Bad
    } else if volume.newest_cut.is_none() {
        Tone::Warn
    } else {
        Tone::Good
    };
    (words.join("; "), tone)
}
