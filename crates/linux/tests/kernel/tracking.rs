//! Tracking changed blocks, against loop devices that are really written to.

use crate::sandbox::Sandbox;
use everhold_linux::loopdev::LoopHandle;
use everhold_linux::track::Tracker;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// A page at an address that direct I/O takes.
#[repr(align(4096))]
struct Page([u8; 4096]);

fn open_direct(device: &LoopHandle) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(libc_o_direct()).open(device.path()).unwrap()
}

fn libc_o_direct() -> i32 {
    rustix::fs::OFlags::DIRECT.bits() as i32
}

#[test]
fn first_light() {
    let sandbox = Sandbox::new();
    let start = std::time::Instant::now();
    let tracker = Tracker::open(&sandbox.join("bpf")).unwrap();
    println!("open {:?}", start.elapsed());
    let file = sandbox.image("image", 64);
    let device = sandbox.attach("image", &file);
    let following = tracker.follow("one", device.dev(), 64 << 20).unwrap();
    assert!(following.fresh);
    assert!(following.bitmap.is_clean());
    let out = open_direct(&device);
    let page = Page([7; 4096]);
    for block in [0, 1, 5, 63, 64, 16383] {
        out.write_all_at(&page.0, block * 4096).unwrap();
    }
    assert_eq!(following.bitmap.dirty(), [0..2, 5..6, 63..65, 16383..16384]);
    assert!(!following.bitmap.is_clean());
}
