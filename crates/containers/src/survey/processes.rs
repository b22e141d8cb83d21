//! A container's processes, as `/proc` has them.

use std::path::PathBuf;

/// More names tell nothing new.
const MOST: usize = 200;

/// What is known of the processes of a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Processes {
    /// The names of their programs.
    pub(super) names: Vec<String>,
    /// The user of the main process, as the host's kernel sees it.
    pub(super) uid: Option<u32>,
    /// Its groups.
    pub(super) gids: Vec<u32>,
}

/// What is known of this process and its children.
pub(super) fn of(main: u32) -> Processes {
    let read = |pid: u32, file: &str| {
        let path: PathBuf = ["/proc", &pid.to_string(), file].iter().collect();
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let status = read(main, "status");
    let (uid, gids) = ids(&status);
    let (mut names, mut next) = (Vec::new(), vec![main]);
    while let Some(pid) = next.pop() {
        let name = read(pid, "comm").trim_end().to_owned();
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
        if names.len() >= MOST {
            break;
        }
        let children = read(pid, &format!("task/{pid}/children"));
        next.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Processes { names, uid, gids }
}

/// The effective user, and all groups, of `/proc/PID/status` (proc(5)).
fn ids(status: &str) -> (Option<u32>, Vec<u32>) {
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().split_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    let mut gids = numbers("Groups:");
    gids.extend(numbers("Gid:").get(1));
    gids.sort_unstable();
    gids.dedup();
    (numbers("Uid:").get(1).copied(), gids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_and_all_groups() {
        let status = "Name:\tx\nUid:\t1000\t999\t0\t0\nGid:\t5\t6\t7\t8\nGroups:\t6 20 \n";
        assert_eq!(ids(status), (Some(999), vec![6, 20]));
        assert_eq!(ids(""), (None, vec![]));
    }

    #[test]
    fn this_process_is_known_and_a_dead_one_is_not() {
        assert!(!of(std::process::id()).names.is_empty());
        assert_eq!(of(u32::MAX), Processes::default());
    }
}
