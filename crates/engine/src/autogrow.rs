//! Growth by itself: looks at attached volumes with a rule, and grows those that fill up.

use crate::engine::Engine;
use crate::hold::time_to_write;
use model::Volume;
use std::sync::Arc;
use std::time::Duration;

const OFTEN: Duration = Duration::from_millis(20);
const SELDOM: Duration = Duration::from_secs(1);

impl Engine {
    /// Grows what its rule says, and says when to look again: the fuller, the sooner.
    pub fn grow_by_rule(&self) -> Duration {
        let ruled: Vec<Arc<Volume>> = {
            let table = self.read();
            let has_rule =
                |v: &&Arc<Volume>| v.is_live() && v.spec.autogrow().is_some() && !v.attachments.is_empty();
            table.all().filter(has_rule).cloned().collect()
        };
        ruled.iter().map(|volume| self.grow_one_by_rule(volume)).min().unwrap_or(SELDOM)
    }

    fn grow_one_by_rule(&self, volume: &Volume) -> Duration {
        let Some((rule, size)) = volume.spec.autogrow().zip(volume.spec.size()) else { return SELDOM };
        let usage = self.with_driver(volume, "look at", "", |driver, place| driver.usage(place));
        let Ok(storage::Usage { size: Some(usable), used: Some(used), .. }) = usage else { return SELDOM };
        let Some(to) = rule.next(size, used, usable) else {
            let left = rule.at.of(usable).saturating_sub(used);
            return if size >= rule.max { SELDOM } else { time_to_write(left).clamp(OFTEN, SELDOM) };
        };
        let Some(_claim) = self.claims.try_take(&volume.name, "autogrow") else { return OFTEN };
        match self.grow_claimed(&volume.name, to) {
            Ok(_) => {
                tracing::info!(volume = %volume.name, from = %size, %to, "grown by its rule");
                OFTEN
            }
            Err(error) => {
                tracing::warn!(volume = %volume.name, %to, error = error.advice(), "should grow by its rule, but");
                SELDOM
            }
        }
    }
}
