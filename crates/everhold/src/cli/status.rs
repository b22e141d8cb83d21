//! `everhold status`

use super::vault::standing;
use super::{Outcome, Session};
use crate::output::human::{span, time};
use crate::output::progress::waiting;
use crate::output::{Tone, plain};
use api::v1::VaultState;
use engine::{Clock, SystemClock};
use std::process::ExitCode;

/// The daemon at a glance.
pub async fn run(session: &Session) -> Outcome {
    let status = waiting("asking the daemon", session.client.status()).await?;
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
