//! What could not be looked at. Never skipped in silence.

use super::Draft;
use crate::case::Context;
use crate::facts::{MountKind, Volume};
use crate::report::Severity;
use crate::words::list;

pub(super) fn not_looked_at(context: &Context<'_>) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for case in &context.cases {
        let container = case.container;
        if let Err(why) = &container.layer {
            let found = format!("the writable layer could not be looked at: {}", why.trim_end_matches('.'));
            drafts.push(Draft::new(Severity::Note, found).container(&container.name));
        }
        // A volume that is not seen is said once, as a volume.
        let unseen = container.mounts.iter().filter(|mount| {
            let listed = mount.volume.as_ref().is_some_and(|name| volume(context, name).is_some());
            let looked_for = matches!(mount.kind, MountKind::Volume | MountKind::Bind);
            mount.content.is_none() && looked_for && !listed
        });
        let unseen: Vec<String> = unseen.map(|mount| mount.destination.clone()).collect();
        if !unseen.is_empty() {
            let found = format!("what is mounted at {} could not be looked at", list(&unseen, 8));
            drafts.push(Draft::new(Severity::Note, found).container(&container.name));
        }
    }
    for volume in context.host.volumes.iter().filter(|volume| volume.content.is_none()) {
        let found = format!("volume {} of driver {} could not be looked at", volume.name, volume.driver);
        drafts.push(Draft::new(Severity::Note, found).volume(&volume.name));
    }
    for what in &context.host.unreadable {
        drafts.push(Draft::new(Severity::Note, what.trim_end_matches('.')));
    }
    drafts
}

fn volume<'a>(context: &Context<'a>, name: &str) -> Option<&'a Volume> {
    context.host.volumes.iter().find(|volume| volume.name == name)
}
