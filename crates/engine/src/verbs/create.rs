//! Create: a new, empty volume.

use crate::engine::{Engine, make_dir};
use crate::{Change, Error, Fault, Result};
use model::{DriverSpec, Intent, Life, Options, Provisioning, Size, Spec, Volume, VolumeId, VolumeName};
use std::path::Path;
use std::sync::Arc;

const STATE_UNDONE: &str = "nothing of it remains";

impl Engine {
    /// Creates a volume, or finds that it is there as asked.
    ///
    /// # Errors
    /// Options that do not hold, a name taken by a volume with other options, no room, or a driver that fails; then
    /// nothing remains of it.
    pub fn create(&self, name: &VolumeName, options: &Options) -> Result<(Change, Arc<Volume>)> {
        let user = |name: &str| linux::host::user_id(name).ok().flatten();
        let group = |name: &str| linux::host::group_id(name).ok().flatten();
        let spec = options.resolve(&self.settings.defaults, user, group)?;
        let _claim = self.claim(name, "create")?;
        if let Ok(existing) = self.volume(name) {
            let spec = self.admit(name, spec.clone()).unwrap_or(spec);
            let differences = options.differences(&spec, &existing.spec, &existing.asked);
            return if differences.is_empty() {
                Ok((Change::AlreadyThere, existing))
            } else {
                Err(Error::OtherOptions { name: name.clone(), differences })
            };
        }
        let spec = self.admit(name, spec)?;
        let volume = self.begin(name, spec, options)?;
        match self.make(&volume) {
            Ok(volume) => Ok((Change::Done, volume)),
            Err(error) => {
                self.undo_create(&volume);
                Err(error)
            }
        }
    }

    fn admit(&self, name: &VolumeName, spec: Spec) -> Result<Spec> {
        let pool = self.pool(&spec.pool)?.settings.path.clone();
        let driver = self.drivers.get(spec.kind());
        driver.admit(spec, &pool).map_err(|source| Error::Storage {
            name: name.clone(),
            verb: "create",
            source,
            state: STATE_UNDONE,
        })
    }

    /// Checks the promise and records the intent, with no other promise in between.
    fn begin(&self, name: &VolumeName, spec: Spec, options: &Options) -> Result<Arc<Volume>> {
        let _placing = self.placing();
        let pool = self.pool(&spec.pool)?;
        let now = match &spec.driver {
            DriverSpec::Image(image) if image.provisioning == Provisioning::Thick => {
                image.size.saturating_add(self.still_to_come(pool)?)
            }
            _ => Size::default(),
        };
        let needs_room = !matches!(&spec.driver, DriverSpec::Dir(dir) if dir.path.is_some());
        if needs_room {
            let whole = spec.promised();
            pool.check_promise(self.promised(&spec.pool), whole, whole, now)?;
        }
        if let DriverSpec::Dir(dir) = &spec.driver
            && let Some(path) = &dir.path
        {
            self.refuse_taken_path(path)?;
        }
        let quota = matches!(&spec.driver, DriverSpec::Dir(dir) if dir.size.is_some());
        self.record(Volume {
            id: VolumeId::from_uuid(uuid::Uuid::new_v4()),
            name: name.clone(),
            project: if quota { Some(self.next_project()?) } else { None },
            asked: options.asked(&spec),
            typed: options.typed().clone(),
            spec,
            created: self.clock.now(),
            life: Life::Live,
            filesystem: None,
            pending: Some(Intent::Create),
            restart: Vec::new(),
            attachments: Vec::new(),
            fenced: None,
        })
    }

    fn refuse_taken_path(&self, path: &Path) -> Result<()> {
        let table = self.read();
        let taken = table.all().find_map(|volume| match &volume.spec.driver {
            DriverSpec::Dir(dir) => {
                let other = dir.path.as_deref()?;
                (path.starts_with(other) || other.starts_with(path)).then(|| volume.name.clone())
            }
            _ => None,
        });
        match taken {
            Some(other) => Err(Error::PathTaken { path: path.to_owned(), other }),
            None => Ok(()),
        }
    }

    fn make(&self, volume: &Volume) -> Result<Arc<Volume>> {
        self.fault(Fault::CreateRecorded);
        make_dir(&self.home(volume)?, 0o700)?;
        self.fault(Fault::CreateHome);
        self.with_driver(volume, "create", STATE_UNDONE, |driver, place| driver.create(place))?;
        self.fault(Fault::CreateMade);
        let ready = Volume { pending: None, ..volume.clone() };
        // Strictly: a new volume without a description would be lost with the catalog.
        crate::description::write(&ready, &self.home(&ready)?)?;
        self.fault(Fault::CreateDescribed);
        self.record(ready)
    }

    /// Takes back a creation that failed. If even that fails, start-up tries again.
    pub(crate) fn undo_create(&self, volume: &Volume) {
        if let Err(error) = self.destroy_now(volume) {
            tracing::error!(volume = %volume.name, id = %volume.id, %error, "could not undo a failed creation; start-up will try again");
            let fenced = Volume {
                fenced: Some(format!("its creation failed and could not be undone: {error}")),
                ..volume.clone()
            };
            if let Err(error) = self.record(fenced) {
                tracing::error!(volume = %volume.name, %error, "could not record that");
            }
        }
    }
}
