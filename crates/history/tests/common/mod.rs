//! Cuts of volumes at rest, for tests without a kernel's freeze.

use everhold_history::{Bounds, Changes, Cut, Error, Freezer, Frozen, Live, Writer, cut};
use jiff::Timestamp;
use std::path::Path;

struct NotFrozen;

impl Freezer for NotFrozen {
    fn freeze<'a>(&'a self, _: &Path) -> Result<Box<dyn Frozen + 'a>, String> {
        Err("nothing here is mounted".to_owned())
    }
}

/// Cuts a volume that nobody uses, at this time in milliseconds. Without marks all of it is compared.
pub fn cut_at_rest(
    writer: &mut Writer,
    changes: Option<&dyn Changes>,
    time: u64,
) -> Result<Option<Cut>, Error> {
    let mut lives = [Live {
        writer,
        changes,
        still: &|_| unreachable!("it is not in use"),
        mountpoint: None,
        is_free: &|| true,
        echo: 0..0,
    }];
    let clock = || Timestamp::from_millisecond(time as i64).expect("a time");
    Ok(cut(&mut lives, &NotFrozen, &clock, &Bounds::default())?[0])
}
