//! What is to be known of a container before it is judged: its services, where their data is, and which mounts miss it.
//! Checks share it, so that no byte is counted twice and nothing is said twice.

use crate::facts::{Container, Content, Host, Mount, MountKind};
use crate::recognise::{Recognised, has_signature, recognise};
use crate::rules::{Rules, Service};
use crate::tally::{Amount, Below, is_below};

/// A container, looked at.
#[derive(Debug, Clone)]
pub(crate) struct Case<'a> {
    pub container: &'a Container,
    pub services: Vec<Recognised<'a>>,
    /// Each data directory of each service.
    pub data: Vec<DataPlace<'a>>,
    /// Mounts that were meant for data and have none.
    pub missed: Vec<Missed<'a>>,
}

/// A data directory, and where it really is.
#[derive(Debug, Clone)]
pub(crate) struct DataPlace<'a> {
    pub path: String,
    pub service: &'a Service,
    pub told: Option<String>,
    /// The mount that it lies on; `None` is the writable layer.
    pub home: Option<&'a Mount>,
}

/// A mount that was meant for the data that is elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Missed<'a> {
    pub mount: &'a Mount,
    /// Where the data really is.
    pub data: DataPlace<'a>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(container: &'a Container, rules: &'a Rules) -> Self {
        let services = recognise(container, rules);
        let place = |found: &Recognised<'a>| {
            let (service, told) = (found.service, found.told.clone());
            let place = move |path: &String| DataPlace {
                path: path.clone(),
                service,
                told: told.clone(),
                home: home(container, path),
            };
            found.data.iter().map(place).collect::<Vec<_>>()
        };
        let data = services.iter().flat_map(place).collect();
        let mut case = Self { container, services, data, missed: Vec::new() };
        case.missed = case.find_missed();
        case
    }

    /// Whether it keeps data that a service needs.
    pub(crate) fn is_stateful(&self) -> bool {
        !self.data.is_empty()
    }

    /// Whether it is a server that two at once must not run on the same files.
    pub(crate) fn database(&self) -> Option<&'a Service> {
        let mut services = self.services.iter().filter(|found| !found.data.is_empty());
        services.find(|found| found.service.class.is_database()).map(|found| found.service)
    }

    /// The service whose data is on this mount.
    pub(crate) fn service_on(&self, mount: &Mount) -> Option<&'a Service> {
        let on = |place: &&DataPlace<'_>| place.home.is_some_and(|home| std::ptr::eq(home, mount));
        self.data.iter().find(on).map(|place| place.service)
    }

    /// Data directories in the writable layer with something in them. None is below another.
    pub(crate) fn layer_data(&self) -> Vec<(&DataPlace<'a>, Below)> {
        let Ok(layer) = &self.container.layer else { return Vec::new() };
        let mut places: Vec<_> = self.data.iter().filter(|place| place.home.is_none()).collect();
        places.sort_by(|a, b| a.path.cmp(&b.path));
        let mut outer: Vec<&DataPlace<'_>> = Vec::new();
        for place in places {
            if !outer.iter().any(|other| is_below(&place.path, &other.path)) {
                outer.push(place);
            }
        }
        let held = outer.into_iter().map(|place| (place, layer.below(&place.path)));
        held.filter(|(_, below)| below.matter.bytes + below.noise.bytes > 0).collect()
    }

    /// What matters in the layer, and is no service's data.
    pub(crate) fn layer_rest(&self) -> Amount {
        let Ok(layer) = &self.container.layer else { return Amount::default() };
        self.layer_data().iter().fold(layer.matter, |rest, (_, below)| rest.minus(below.matter))
    }

    /// Whether this data directory is named by a finding on a mount that misses it.
    pub(crate) fn is_missed(&self, path: &str) -> bool {
        self.missed.iter().any(|missed| missed.data.path == path)
    }

    fn find_missed(&self) -> Vec<Missed<'a>> {
        let mut found = Vec::new();
        for mount in &self.container.mounts {
            let keeps = matches!(mount.kind, MountKind::Volume | MountKind::Bind);
            let used = self.service_on(mount).is_some();
            if !keeps || mount.anonymous || !mount.read_write || used {
                continue;
            }
            let astray = self.data.iter().filter(|place| self.is_astray(place));
            // One data directory is enough to say it, and of several the one with this mount in it or near it.
            let near = |place: &&DataPlace<'_>| {
                is_below(&mount.destination, &place.path) || is_below(&place.path, &mount.destination)
            };
            let meant: Vec<_> = astray.filter(|place| is_meant(self.container, mount, place)).collect();
            if let Some(place) = meant.iter().copied().find(near).or_else(|| meant.first().copied()) {
                found.push(Missed { mount, data: place.clone() });
            }
        }
        found
    }

    /// Whether data is there, and on nothing that was made to keep it.
    fn is_astray(&self, place: &DataPlace<'_>) -> bool {
        // Another directory of the same service on a volume is as good a sign that this one is only another default.
        let kept = |other: &DataPlace<'_>| {
            other.service.name == place.service.name
                && other.home.is_some_and(|mount| !mount.anonymous && mount.kind != MountKind::Tmpfs)
        };
        match place.home {
            None => {
                self.layer_data().iter().any(|(data, _)| data.path == place.path)
                    && !self.data.iter().any(kept)
            }
            Some(mount) => {
                let empty = mount.content.as_ref().is_some_and(is_bare);
                mount.anonymous && !empty && !self.data.iter().any(kept)
            }
        }
    }
}

/// Whether this mount was meant for that data.
fn is_meant(container: &Container, mount: &Mount, place: &DataPlace<'_>) -> bool {
    let service = place.service;
    let known = service.data.iter().chain(&service.also).any(|path| *path == mount.destination);
    match &mount.content {
        Some(content) if !content.exists => false,
        // An empty volume in a container whose data is elsewhere was meant for something.
        Some(content) if is_bare(content) || holds_mount_points(container, mount, content) => {
            known || mount.kind == MountKind::Volume
        }
        Some(content) => known && has_signature(&content.signatures, service),
        None => known && service.class.is_database(),
    }
}

/// Whether nothing is in it, or only what a file system has from the start.
pub(crate) fn is_bare(content: &Content) -> bool {
    content.exists
        && (content.empty
            || (!content.signatures.is_empty() && content.signatures.iter().all(|name| name == "lost+found")))
}

/// Whether all that is in a mount are the directories that the engine made for mounts below it.
fn holds_mount_points(container: &Container, mount: &Mount, content: &Content) -> bool {
    let below = container.mounts.iter().filter_map(|other| {
        let rest = other.destination.strip_prefix(mount.destination.trim_end_matches('/'))?;
        rest.strip_prefix('/')?.split('/').next()
    });
    let points: Vec<&str> = below.collect();
    !content.signatures.is_empty()
        && content.signatures.iter().all(|name| name == "lost+found" || points.contains(&name.as_str()))
}

/// The mount that a path lies on: the deepest that is it or above it.
fn home<'a>(container: &'a Container, path: &str) -> Option<&'a Mount> {
    let above = container.mounts.iter().filter(|mount| is_below(path, &mount.destination));
    above.max_by_key(|mount| mount.destination.trim_end_matches('/').len())
}

/// All that checks look at.
pub(crate) struct Context<'a> {
    pub host: &'a Host,
    pub rules: &'a Rules,
    pub cases: Vec<Case<'a>>,
    /// Containers that were not asked for.
    pub others: Vec<Case<'a>>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(host: &'a Host, rules: &'a Rules) -> Self {
        let cases = |containers: &'a [Container]| {
            containers.iter().map(|container| Case::new(container, rules)).collect()
        };
        Self { host, rules, cases: cases(&host.containers), others: cases(&host.others) }
    }

    /// All containers of the host.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Case<'a>> {
        self.cases.iter().chain(&self.others)
    }

    /// The container that a rescue or an adoption has put in the place of this one, which it keeps.
    pub(crate) fn kept_for(&self, container: &Container) -> Option<&'a str> {
        let name =
            ["-before-rescue", "-before-adopt"].iter().find_map(|end| container.name.strip_suffix(end))?;
        self.all().map(|case| case.container.name.as_str()).find(|other| *other == name)
    }

    /// The containers that have this volume.
    pub(crate) fn holders(&self, volume: &str) -> Vec<&'a Container> {
        let has = |case: &&Case<'_>| {
            case.container.mounts.iter().any(|mount| mount.volume.as_deref() == Some(volume))
        };
        self.all().filter(has).map(|case| case.container).collect()
    }
}
