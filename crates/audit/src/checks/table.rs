//! The table of checks: what is looked at, and why it matters. A new check is an entry here, a function in the file of its
//! group, and a case in `tests/breaks.rs` in which it complains.

use super::Look::{Container, Host};
use super::{Check, access, habits, layer, mounts, readonly, unseen, volumes};

/// All checks. What stands first is said first among findings of the same severity and size.
pub(crate) const TABLE: &[Check] = &[
    Check {
        code: "volume-misses-data",
        why: "what is meant to keep the data has none of it, and everything looks well until the container is made anew",
        look: Container(mounts::volume_misses_data),
    },
    Check {
        code: "data-in-layer",
        why: "the writable layer is deleted with its container: by docker rm, by an update of the image, by compose down",
        look: Container(layer::data_in_layer),
    },
    Check {
        code: "data-on-tmpfs",
        why: "it is in memory: it goes when the container stops, not only when it is removed",
        look: Container(mounts::data_on_tmpfs),
    },
    Check {
        code: "files-in-layer",
        why: "the writable layer is deleted with its container, and no rule says that nobody misses these files",
        look: Container(layer::files_in_layer),
    },
    Check {
        code: "data-on-anonymous-volume",
        why: "a volume without a name goes with docker rm -v, compose down -v and --rm, and a container made anew gets another, empty one",
        look: Host(mounts::data_on_anonymous_volume),
    },
    Check {
        code: "removes-itself",
        why: "the container was started with --rm: a stop, a crash or a restart of the host is enough, nobody has to remove it",
        look: Container(habits::removes_itself),
    },
    Check {
        code: "shared-writable",
        why: "containers that write the same files must agree on how, and most programs do not expect a second one",
        look: Host(access::shared_writable),
    },
    Check {
        code: "mount-not-writable",
        why: "the next write there fails with \"permission denied\"",
        look: Container(access::not_writable),
    },
    Check {
        code: "mount-hides-image-content",
        why: "the container does not see what the image brought there; only an empty volume gets a copy of it",
        look: Container(mounts::hides_image_content),
    },
    Check {
        code: "volume-directory-gone",
        why: "the engine still lists the volume, but its directory is not there: its data is lost or was moved, and containers that use it do not start",
        look: Host(volumes::directory_gone),
    },
    Check {
        code: "volume-dangling",
        why: "no container uses the volume, and docker volume prune (with -a also for volumes that have a name) deletes what no container uses",
        look: Host(volumes::dangling),
    },
    Check {
        code: "volume-without-history",
        why: "the volume outlives its containers, but not a disk, a mistake or an attacker: no copy of it is known",
        look: Host(volumes::without_history),
    },
    Check {
        code: "history-behind",
        why: "what was written since can't be restored",
        look: Host(volumes::behind),
    },
    Check {
        code: "volume-nearly-full",
        why: "when it is full, writes fail; databases stop then, and some need repair",
        look: Host(volumes::nearly_full),
    },
    Check {
        code: "host-nearly-full",
        why: "writable layers, images and local volumes share this file system, and all fail together when it is full",
        look: Host(volumes::host_nearly_full),
    },
    Check {
        code: "hostname-not-fixed",
        why: "the service files its data under the host name, which is made from the container's ID: a container made anew starts empty beside it",
        look: Container(habits::hostname_not_fixed),
    },
    Check {
        code: "no-restart-policy",
        why: "after a crash or a restart of the host it stays down until somebody notices",
        look: Container(habits::no_restart_policy),
    },
    Check {
        code: habits::KEPT,
        why: "a rescue or an adoption keeps the container that it replaces until it is told otherwise",
        look: Container(habits::kept),
    },
    Check {
        code: "moving-tag",
        why: "the next pull may bring a version that can't read this data, or that changes it so that there is no way back",
        look: Container(habits::moving_tag),
    },
    Check {
        code: "could-be-read-only",
        why: "a read-only root makes sure that nothing is ever kept in the layer by mistake",
        look: Container(readonly::could_be_read_only),
    },
    Check {
        code: "not-looked-at",
        why: "what is not seen is not known to be safe",
        look: Host(unseen::not_looked_at),
    },
];
