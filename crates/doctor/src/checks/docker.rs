//! Checks of the Docker Engine, from what it says of itself.

use super::{Finding, some_of};
use crate::context::DockerFacts;
use crate::facts::Facts;
use crate::version;
use std::collections::BTreeSet;

/// Runs a check on an engine that answers; without one, there is nothing to say against it.
fn with(facts: &Facts, look: impl Fn(&DockerFacts) -> Finding) -> Finding {
    match &facts.docker {
        Ok(Some(docker)) => look(docker),
        Ok(None) => Finding::ok("no Docker Engine on this host"),
        Err(_) => Finding::advice("not known: Docker does not answer"),
    }
}

pub(super) fn reachable(facts: &Facts) -> Finding {
    match &facts.docker {
        Ok(Some(docker)) => Finding::ok(format!("answers; API {}", docker.api_version)),
        Ok(None) => Finding::advice("no Docker Engine on this host"),
        Err(why) => {
            Finding::problem(format!("does not answer: {why}")).command("systemctl enable --now docker")
        }
    }
}

pub(super) fn engine_version(facts: &Facts) -> Finding {
    with(facts, |docker| match version::parse(&docker.version) {
        Some(version) if version >= (20, 10) => Finding::ok(&docker.version),
        Some(_) => Finding::warning(format!("{}, older than what is tested", docker.version)),
        None => Finding::advice(format!("{:?}, which is no version we know", docker.version)),
    })
}

pub(super) fn storage_driver(facts: &Facts) -> Finding {
    with(facts, |docker| {
        let backing = docker.backing_fs.as_ref().map(|fs| format!(" on {fs}")).unwrap_or_default();
        let found = format!("{}{backing}", docker.storage_driver);
        match docker.storage_driver.as_str() {
            // Docker 29 names containerd's snapshotter of the same technique.
            "overlay2" | "overlayfs" => Finding::ok(found),
            "vfs" | "devicemapper" | "aufs" | "overlay" => Finding::warning(found),
            _ => Finding::advice(found),
        }
    })
}

pub(super) fn rootless(facts: &Facts) -> Finding {
    with(
        facts,
        |docker| {
            if docker.rootless { Finding::problem("runs rootless") } else { Finding::ok("runs as root") }
        },
    )
}

pub(super) fn live_restore(facts: &Facts) -> Finding {
    with(facts, |docker| {
        if docker.live_restore {
            return Finding::ok("on");
        }
        if facts.host.docker_config {
            return Finding::advice("off")
                .recommend(
                    "add \"live-restore\": true to /etc/docker/daemon.json and reload (not with Swarm)",
                )
                .command("systemctl reload docker");
        }
        Finding::advice("off").command(
            "mkdir -p /etc/docker && echo '{\"live-restore\": true}' > /etc/docker/daemon.json && systemctl reload docker",
        )
    })
}

pub(super) fn same_volumes(facts: &Facts) -> Finding {
    let (Ok(Some(docker)), Ok(daemon)) = (&facts.docker, &facts.daemon) else {
        return match facts.docker {
            Ok(None) => Finding::ok("no Docker Engine on this host"),
            _ => Finding::advice("not compared: both Docker and the daemon must answer"),
        };
    };
    let Some(known) = &docker.volumes else {
        return Finding::warning("Docker did not list its volumes")
            .command("docker volume ls --filter driver=everhold");
    };
    let theirs: BTreeSet<_> = known.iter().collect();
    let ours: BTreeSet<_> = daemon.volumes.iter().collect();
    let names = |set: &BTreeSet<&String>, other| {
        set.difference(other).map(|name| (*name).clone()).collect::<Vec<_>>()
    };
    let (lost, unseen) = (names(&theirs, &ours), names(&ours, &theirs));
    match (lost.is_empty(), unseen.is_empty()) {
        (true, true) => Finding::ok(format!("both know the same {} volumes", ours.len())),
        (false, _) => Finding::warning(format!("Docker knows {}, Everhold does not", some_of(&lost)))
            .recommend("look in the trash, and restore what containers still need")
            .command("everhold trash ls"),
        (true, false) => {
            Finding::warning(format!("Everhold has {}, Docker does not list it", some_of(&unseen)))
                .recommend(
                    "see whether another driver has a volume of that name, or Docker can't reach the plugin",
                )
                .command("docker volume ls")
        }
    }
}
