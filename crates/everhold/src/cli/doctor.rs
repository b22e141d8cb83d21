//! `everhold doctor`: looks at this host itself, and asks the daemon and Docker what they know.

use super::{Outcome, Session};
use crate::config::{Config, Overrides};
use crate::output::progress::waiting;
use crate::output::{Output, Tone, plain};
use api::Client;
use docker::DockerEngine;
use doctor::{Check, Context, DaemonFacts, DockerFacts, PoolPlace, Report, Verdict};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

/// Check this host. Exit code 1 when something is wrong.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    #[command(flatten)]
    overrides: Overrides,
}

impl Doctor {
    /// Examines and prints.
    pub async fn run(self, session: &Session, socket: Option<&Path>) -> Outcome {
        let config = super::load(&self.overrides, socket)?;
        // With a configuration of its own and no socket named, that daemon's socket is meant.
        let client = Client::new(config.api_socket.clone());
        let context = waiting("asking the daemon and Docker", gather(&config, &client)).await;
        let report = doctor::examine(&context);
        session.out.show(&report, |out| say(out, &report))?;
        Ok(if report.healthy() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[expect(clippy::disallowed_methods, reason = "the doctor compares the wall clock itself")]
fn now() -> SystemTime {
    SystemTime::now()
}

async fn gather(config: &Config, client: &Client) -> Context {
    let pools = config.pools.iter().map(|pool| PoolPlace {
        name: pool.name.to_string(),
        path: pool.path.clone(),
        reserve: pool.reserve,
    });
    Context {
        now: now(),
        root: "/".into(),
        state: config.state.clone(),
        mountpoints: config.settings().mountpoints(),
        plugin_socket: config.plugin_socket.clone(),
        pools: pools.collect(),
        docker: if config.docker { docker_facts(config).await.map(Some) } else { Ok(None) },
        daemon: daemon_facts(client).await,
    }
}

async fn daemon_facts(client: &Client) -> Result<DaemonFacts, String> {
    let volumes = client.volumes().await.map_err(|problem| problem.detail)?.volumes;
    let trash = client.trash().await.map_err(|problem| problem.detail)?.volumes;
    Ok(DaemonFacts {
        ids: volumes.iter().chain(&trash).map(|volume| volume.id.clone()).collect(),
        volumes: volumes.into_iter().map(|volume| volume.name).collect(),
    })
}

async fn docker_facts(config: &Config) -> Result<DockerFacts, String> {
    let engine = crate::daemon::docker_engine(config, tokio::runtime::Handle::current());
    let facts = engine.facts().await.map_err(|error| error.to_string())?;
    let volumes = DockerEngine::volumes_of_ours(&engine).await;
    Ok(DockerFacts {
        version: facts.version,
        api_version: facts.api_version,
        storage_driver: facts.storage_driver,
        backing_fs: None,
        rootless: facts.rootless,
        live_restore: facts.live_restore,
        volumes: volumes
            .ok()
            .map(|known| known.listed.into_iter().chain(known.mounted.into_keys()).collect()),
    })
}

fn say(out: &Output, report: &Report) {
    report.checks.iter().for_each(|check| say_one(out, check));
    out.line(&format!(
        "{} fine, {} could be better, {} will hurt, {} wrong",
        report.count(Verdict::Ok),
        report.count(Verdict::Advice),
        report.count(Verdict::Warning),
        report.count(Verdict::Problem)
    ));
}

fn say_one(out: &Output, check: &Check) {
    let (word, tone) = match check.verdict {
        Verdict::Ok => ("ok     ", Tone::Good),
        Verdict::Advice => ("advice ", Tone::Head),
        Verdict::Warning => ("warning", Tone::Warn),
        Verdict::Problem => ("problem", Tone::Bad),
    };
    let subject = check.subject.as_deref().map_or_else(String::new, |subject| format!(" ({subject})"));
    out.line(&format!("{} {}{subject}: {}", out.tone(word, tone), check.title, plain(&check.found)));
    if check.verdict == Verdict::Ok {
        return;
    }
    out.line(&format!("        recommended: {}", plain(&check.recommended)));
    out.line(&format!("        why:         {}", plain(&check.why)));
    if let Some(command) = &check.command {
        out.line(&format!("        command:     {}", plain(command)));
    }
}
