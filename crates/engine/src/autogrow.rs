//! Growth by itself: looks at attached volumes with a rule, and grows those that fill up.

use crate::engine::Engine;
use model::Volume;
use std::sync::Arc;

impl Engine {
    /// Grows what its rule says. Says whether any volume has a rule, so that nobody looks for nothing.
    pub fn grow_by_rule(&self) -> bool {
        let ruled: Vec<Arc<Volume>> = {
            let table = self.read();
            let has_rule = |v: &&Arc<Volume>| v.is_live() && v.spec.autogrow().is_some() && !v.attachments.is_empty();
            table.all().filter(has_rule).cloned().collect()
        };
        for volume in &ruled {
            self.grow_one_by_rule(volume);
        }
        !ruled.is_empty()
    }

    fn grow_one_by_rule(&self, volume: &Volume) {
        let Some(rule) = volume.spec.autogrow() else { return };
        let Some(size) = volume.spec.size() else { return };
        let usage = self.with_driver(volume, "look at", "", |driver, place| driver.usage(place));
        let Ok(storage::Usage { size: Some(usable), used: Some(used), .. }) = usage else { return };
        let Some(to) = rule.next(size, used, usable) else { return };
        let Some(_claim) = self.claims.try_take(&volume.name, "autogrow") else { return };
        match self.grow_claimed(&volume.name, to) {
            Ok(_) => tracing::info!(volume = %volume.name, from = %size, %to, "grown by its rule"),
            Err(error) => tracing::warn!(volume = %volume.name, %to, error = error.advice(), "should grow by its rule, but"),
        }
    }
}
