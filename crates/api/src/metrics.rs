//! Metrics in the OpenMetrics text format, which Prometheus reads.
//!
//! What is counted (verbs) is kept here; what can be looked at (volumes, pools) is looked at when someone asks.

use crate::v1::VolumeState;
use engine::{Engine, Hold};
use jiff::Timestamp;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// The media type of the OpenMetrics text format.
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Bytes = Gauge<u64, AtomicU64>;
type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: Word,
    result: Word,
}

/// A label value that needs no allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabels {
    volume: String,
    driver: String,
    pool: String,
}

/// The driver is always the same: only one has histories.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HistoryLabels {
    volume: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

/// What the daemon counts.
pub struct Metrics {
    registry: Registry,
    verbs: Family<VerbLabels, Counter>,
    durations: Family<VerbLabels, Histogram>,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("everhold");
        let verbs = Family::<VerbLabels, Counter>::default();
        // 1 ms to 65 s: from a label to the deadline of a call.
        let durations = Family::<VerbLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 4.0, 9))
        });
        registry.register("verbs", "Verbs by result: ok, or the code of the error", verbs.clone());
        registry.register_with_unit("verb_duration", "How long verbs took", Unit::Seconds, durations.clone());
        registry.register("build", "The version", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, verbs, durations }
    }

    /// Counts one verb. `result` is `ok` or the code of an error kind.
    pub fn observe(&self, verb: &'static str, result: &'static str, duration: Duration) {
        let labels = VerbLabels { verb: Word(verb), result: Word(result) };
        self.verbs.get_or_create(&labels).inc();
        self.durations.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// Everything as text. Looks at every volume and pool: call it where it may block.
    pub(crate) fn encode(&self, engine: &Engine) -> Result<String, fmt::Error> {
        let mut seen = Registry::with_prefix("everhold");
        see_volumes(&mut seen, engine);
        see_histories(&mut seen, engine);
        see_pools(&mut seen, engine);
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &seen)?;
        encode_eof(&mut text)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn see_volumes(registry: &mut Registry, engine: &Engine) {
    let states = Family::<StateLabels, Bytes>::default();
    let size = Family::<VolumeLabels, Bytes>::default();
    let used = Family::<VolumeLabels, Bytes>::default();
    let allocated = Family::<VolumeLabels, Bytes>::default();
    let attachments = Family::<VolumeLabels, Bytes>::default();
    let mut by_state: BTreeMap<&'static str, u64> =
        VolumeState::ALL.iter().map(|s| (s.as_str(), 0)).collect();
    for volume in engine.volumes().iter().chain(&engine.trash()) {
        *by_state.entry(VolumeState::of(volume).as_str()).or_default() += 1;
        if !volume.is_live() {
            continue;
        }
        let labels = VolumeLabels {
            volume: volume.name.to_string(),
            driver: volume.spec.kind().to_string(),
            pool: volume.spec.pool.to_string(),
        };
        attachments.get_or_create(&labels).set(volume.attachments.len() as u64);
        // A volume that can't be looked at has no numbers; its state is counted all the same.
        let Ok(usage) = engine.usage_of(volume) else { continue };
        for (family, value) in [(&size, usage.size), (&used, usage.used), (&allocated, usage.allocated)] {
            if let Some(value) = value {
                family.get_or_create(&labels).set(value);
            }
        }
    }
    for (state, count) in by_state {
        states.get_or_create(&StateLabels { state: Word(state) }).set(count);
    }
    registry.register("volumes", "Volumes by state", states);
    registry.register("volume_attachments", "Attachments of each volume", attachments);
    let bytes = |name| (name, Unit::Bytes);
    for ((name, unit), help, family) in [
        (bytes("volume_size"), "What the application can fill in all", size),
        (bytes("volume_used"), "What is in use as the application sees it", used),
        (bytes("volume_allocated"), "What the volume takes from its pool", allocated),
    ] {
        registry.register_with_unit(name, help, unit, family);
    }
}

/// Volumes without a history have no numbers here; what is not known yet has none either.
fn see_histories(registry: &mut Registry, engine: &Engine) {
    let [newest, behind, freeze] = std::array::from_fn(|_| Family::<HistoryLabels, Seconds>::default());
    let verified = Family::<HistoryLabels, Seconds>::default();
    let [waiting, whole] = std::array::from_fn(|_| Family::<HistoryLabels, Bytes>::default());
    let now = engine.now();
    for volume in engine.volumes() {
        let Some(status) = engine.protection_status(&volume.name) else { continue };
        let labels = HistoryLabels { volume: volume.name.to_string() };
        let late = status.behind_since.map(|since| now.duration_since(since).as_secs_f64().max(0.0));
        // Without any durable cut, 0 would say that nothing is missing.
        if let Some(late) = late.or(status.newest.map(|_| 0.0)) {
            behind.get_or_create(&labels).set(late);
        }
        waiting.get_or_create(&labels).set(status.waiting.1);
        if let Some((_, at)) = status.newest {
            newest.get_or_create(&labels).set(at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
        }
        if let Some((at, is_whole)) = status.verified {
            verified.get_or_create(&labels).set(at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
            whole.get_or_create(&labels).set(u64::from(is_whole));
        }
        if let Some(frozen) = status.last_freeze {
            freeze.get_or_create(&labels).set(frozen.as_secs_f64());
        }
    }
    for (name, help, family) in [
        ("history_newest_cut_timestamp", "When the newest cut was that is durable in the vault", newest),
        (
            "history_behind",
            "How long there have been changes that no durable cut has; 0: there are none",
            behind,
        ),
        ("history_last_freeze", "How long writers waited in the last cut", freeze),
        ("history_verified_timestamp", "When a cut was last restored to scratch and checked", verified),
    ] {
        registry.register_with_unit(name, help, Unit::Seconds, family);
    }
    registry.register("history_verified_whole", "1 if nothing was found wrong then", whole);
    let help = "What has been cut and waits for the vault";
    registry.register_with_unit("history_waiting", help, Unit::Bytes, waiting);
}

fn see_pools(registry: &mut Registry, engine: &Engine) {
    let [total, free, reserve, promised, limit] =
        std::array::from_fn(|_| Family::<PoolLabels, Bytes>::default());
    let held = Family::<PoolLabels, Bytes>::default();
    for pool in engine.pools() {
        let Ok(pool) = pool else { continue };
        let labels = PoolLabels { pool: pool.name.to_string() };
        for (family, size) in [
            (&total, pool.total),
            (&free, pool.free),
            (&reserve, pool.reserve),
            (&promised, pool.promised),
            (&limit, pool.promise_limit),
        ] {
            family.get_or_create(&labels).set(size.bytes());
        }
        held.get_or_create(&labels).set(u64::from(matches!(pool.hold, Hold::Held { .. })));
    }
    for (name, help, family) in [
        ("pool_total", "The size of the pool's file system", total),
        ("pool_free", "What can still be used there", free),
        ("pool_reserve", "New volumes are refused when less than this is free", reserve),
        ("pool_promised", "What the pool's volumes may grow to, all together", promised),
        ("pool_promise_limit", "What they may be promised", limit),
    ] {
        registry.register_with_unit(name, help, Unit::Bytes, family);
    }
    registry.register("pool_held", "1 while the writers of the pool are held because it is full", held);
}
