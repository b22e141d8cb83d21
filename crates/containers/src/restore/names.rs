//! What things are called that are restored: as they were, or, beside those, otherwise.

use crate::backup::{Project, SavedVolume};
use std::collections::BTreeMap;

/// The names of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The old name, of the container or of the project, and the new one.
    other: Option<(String, String)>,
    /// Whether the old one is a project's.
    project: bool,
}

impl Names {
    /// Names for what is in a bundle; under another one if that is asked for.
    pub fn new(project: &Project, r#as: Option<&str>) -> Self {
        let old = match (&project.project, &project.containers[..]) {
            (Some(project), [_, _, ..]) => Some(project.clone()),
            (_, [only]) => Some(only.name.clone()),
            (_, _) => None,
        };
        Self {
            other: r#as.map(|new| (old.unwrap_or_default(), new.to_owned())),
            project: project.containers.len() > 1,
        }
    }

    /// Whether all names are others than they were.
    pub fn are_others(&self) -> bool {
        self.other.is_some()
    }

    /// A name that begins with the old one begins with the new one; others get it before them.
    fn renamed(&self, name: &str, joint: char) -> String {
        let Some((old, new)) = &self.other else { return name.to_owned() };
        match name.strip_prefix(old.as_str()).filter(|_| !old.is_empty()) {
            Some("") => new.clone(),
            Some(rest) if rest.starts_with(['-', '_', '.']) => format!("{new}{rest}"),
            _ => format!("{new}{joint}{name}"),
        }
    }

    /// The name of a container.
    pub fn container(&self, name: &str) -> String {
        match &self.other {
            Some((_, new)) if !self.project => new.clone(),
            _ => self.renamed(name, '-'),
        }
    }

    /// The name of a volume. One that Docker made up gets a made-up one that is new.
    pub fn volume(&self, volume: &SavedVolume) -> String {
        match &self.other {
            Some((_, new)) if volume.anonymous => {
                // As the engine makes them up; the same each time, so that a second restore is refused and not doubled.
                blake3::hash(format!("{new}/{}", volume.name).as_bytes()).to_hex().to_string()
            }
            _ => self.renamed(&volume.name, '_'),
        }
    }

    /// The name of a network.
    pub fn network(&self, name: &str) -> String {
        if self.project { self.renamed(name, '_') } else { name.to_owned() }
    }

    /// Labels by which compose knows what belongs together.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = labels.clone();
        if let (Some((old, new)), true) = (&self.other, self.project)
            && let Some(project) =
                labels.get_mut("com.docker.compose.project").filter(|project| *project == old)
        {
            project.clone_from(new);
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::SavedContainer;

    fn names(containers: &[&str], project: Option<&str>, r#as: Option<&str>) -> Names {
        let saved = |name: &&str| SavedContainer {
            id: String::new(),
            name: (*name).to_owned(),
            running: true,
            image: String::new(),
            saved_image: String::new(),
            saved_image_id: String::new(),
        };
        let project = Project {
            instant: jiff::Timestamp::UNIX_EPOCH,
            engine: String::new(),
            architecture: String::new(),
            project: project.map(str::to_owned),
            containers: containers.iter().map(saved).collect(),
            volumes: Vec::new(),
            networks: Vec::new(),
            notes: Vec::new(),
        };
        Names::new(&project, r#as)
    }

    fn volume(name: &str, anonymous: bool) -> SavedVolume {
        SavedVolume {
            name: name.to_owned(),
            driver: "local".to_owned(),
            everhold: false,
            anonymous,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn names_stay_unless_others_are_asked_for() {
        let same = names(&["web"], None, None);
        assert_eq!(
            (same.container("web"), same.volume(&volume("data", false))),
            ("web".into(), "data".into())
        );
        let anonymous = "a".repeat(64);
        assert_eq!(same.volume(&volume(&anonymous, true)), anonymous);
    }

    #[test]
    fn one_container_gets_the_name() {
        let other = names(&["web"], Some("shop"), Some("trial"));
        assert_eq!(other.container("web"), "trial");
        assert_eq!(other.volume(&volume("web-data", false)), "trial-data");
        assert_eq!(other.volume(&volume("data", false)), "trial_data");
        assert_eq!(other.network("shop_default"), "shop_default", "it stays among the others");
        let made_up = other.volume(&volume(&"a".repeat(64), true));
        assert!(crate::container::is_made_up(&made_up) && made_up != "a".repeat(64));
    }

    #[test]
    fn a_project_gets_the_name() {
        let other = names(&["shop-web-1", "cache"], Some("shop"), Some("trial"));
        assert_eq!(
            (other.container("shop-web-1"), other.container("cache")),
            ("trial-web-1".into(), "trial-cache".into())
        );
        assert_eq!(
            (other.volume(&volume("shop_db", false)), other.network("shop_default")),
            ("trial_db".into(), "trial_default".into())
        );
        let labels = BTreeMap::from([("com.docker.compose.project".to_owned(), "shop".to_owned())]);
        assert_eq!(other.labels(&labels)["com.docker.compose.project"], "trial");
        assert_eq!(names(&["a", "b"], None, Some("x")).container("a"), "x-a");
    }
}
