//! How containers are started.

use super::Draft;
use super::save::{Way, back_up, way};
use crate::case::{Case, Context};
use crate::facts::MountKind;
use crate::recognise::ImageName;
use crate::report::{Severity, holds_data};
use crate::words::quote;

/// `--rm` with data that goes too.
pub(super) fn removes_itself(case: &Case<'_>, context: &Context<'_>) -> Vec<Draft> {
    let container = case.container;
    let in_layer = !case.layer_data().is_empty();
    let anonymous = container.mounts.iter().any(|mount| {
        mount.kind == MountKind::Volume
            && mount.anonymous
            && case.service_on(mount).is_some()
            && holds_data(mount.content.as_ref()) != Some(false)
    });
    if !container.auto_remove || !(in_layer || anonymous) {
        return Vec::new();
    }
    let found = "the container removes itself when it stops, with its data";
    let draft = Draft::new(Severity::Risk, found).container(&container.name);
    let draft = draft.more("Save the data first, then make it anew without --rm, with a volume for it");
    vec![match way(context, container, "rescue") {
        Way::Copy => draft,
        _ => draft.command(back_up(&container.name)),
    }]
}

/// RabbitMQ and its like.
pub(super) fn hostname_not_fixed(case: &Case<'_>, _: &Context<'_>) -> Vec<Draft> {
    let container = case.container;
    let given = |hostname: &String| !(hostname.len() == 12 && container.id.starts_with(hostname.as_str()));
    let Some(service) =
        case.services.iter().map(|found| found.service).find(|service| service.hostname_matters)
    else {
        return Vec::new();
    };
    // Data in the layer goes with the container anyway.
    let kept = case.data.iter().any(|place| place.home.is_some());
    if !kept || container.hostname.as_ref().is_none_or(given) {
        return Vec::new();
    }
    let hostname = container.hostname.as_deref().unwrap_or_default();
    let found = format!("{} runs under the host name {hostname}, which was made up", service.name);
    let draft = Draft::new(Severity::Risk, found).container(&container.name);
    vec![
        draft
            .more(&format!(
                "Make it anew with --hostname {hostname}, which its data has now, and keep that name"
            ))
            .command(format!("docker run --hostname {} … {}", quote(hostname), quote(&container.image))),
    ]
}

pub(super) fn no_restart_policy(case: &Case<'_>, _: &Context<'_>) -> Vec<Draft> {
    let container = case.container;
    let none = ["", "no"].contains(&container.restart_policy.as_str());
    // Swarm and Kubernetes start their containers anew themselves.
    let managed = ["com.docker.swarm.task.id", "io.kubernetes.pod.name"];
    let managed = managed.iter().any(|label| container.labels.contains_key(*label));
    // --rm excludes a policy; it is a finding of its own.
    if managed || !none || container.auto_remove || !container.state.is_alive() || !case.is_stateful() {
        return Vec::new();
    }
    let service = case.data.first().map_or("a service with data", |place| place.service.name.as_str());
    let draft = Draft::new(Severity::Advice, format!("{service} runs without a restart policy"))
        .container(&container.name)
        .command(format!("docker update --restart unless-stopped {}", quote(&container.name)));
    vec![draft]
}

/// The code of [`kept`].
pub(super) const KEPT: &str = "kept-by-rescue";

pub(super) fn kept(case: &Case<'_>, context: &Context<'_>) -> Vec<Draft> {
    let Some(new) = context.kept_for(case.container) else { return Vec::new() };
    let found = format!("what it had is on the volumes of {new} since then");
    let of_compose = case.container.labels.contains_key("com.docker.compose.project");
    let severity = if of_compose { Severity::Risk } else { Severity::Note };
    let draft = Draft::new(severity, found).container(&case.container.name);
    let draft = match of_compose {
        true => draft.more("Compose takes it for one too many of its service, and may remove either of the two at its next up"),
        false => draft,
    };
    vec![draft.command(format!("everhold rescue {} --discard-old", quote(new)))]
}

pub(super) fn moving_tag(case: &Case<'_>, _: &Context<'_>) -> Vec<Draft> {
    let container = case.container;
    let image = ImageName::new(&container.image);
    let Some(service) = case.database() else { return Vec::new() };
    // An image that lost its name is shown as its ID, which moves nowhere.
    if !image.moves() || container.image.starts_with("sha256:") || is_id(&container.image) {
        return Vec::new();
    }
    let tag = image.tag.map_or_else(|| "no tag".to_owned(), |tag| format!("the tag {tag}"));
    let found = format!("{} runs from {} with {tag}", service.name, container.image);
    let draft = Draft::new(Severity::Advice, found).container(&container.name);
    let draft = draft.more(
        "Name a version, at least the major one, in the image's tag, or the digest that the command prints",
    );
    // What it runs now, whatever the tag means by now.
    let image = if container.image_id.is_empty() { &container.image } else { &container.image_id };
    vec![draft.command(format!("docker image inspect --format '{{{{.RepoDigests}}}}' {}", quote(image)))]
}

fn is_id(image: &str) -> bool {
    image.len() >= 12 && image.bytes().all(|byte| byte.is_ascii_hexdigit())
}
