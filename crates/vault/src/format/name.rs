//! The names of a stream's objects. One listing of them tells the whole timeline.

use std::fmt;
use std::str::FromStr;

/// The name is not of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name that Everhold gives")]
pub struct BadName(pub String);

/// What stands for a volume in names: a keyed hash of its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub [u8; 16]);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({self})")
    }
}

impl FromStr for StreamId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName(text.to_owned());
        (text.len() == 32).then_some(()).ok_or_else(bad)?;
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| is_lower_hex(text))
            .map(|id| Self(id.to_be_bytes()))
            .ok_or_else(bad)
    }
}

/// `from_str_radix` takes a sign and capital letters too.
fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn hex(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && is_lower_hex(text)).then(|| u64::from_str_radix(text, 16).ok())?
}

/// What a segment ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A consistent point, which can be restored.
    Cut,
    /// A step on the way to one.
    Partial,
}

/// The name of one part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartName {
    /// Whose history.
    pub stream: StreamId,
    /// The point before.
    pub from: u64,
    /// The point at its end.
    pub to: u64,
    /// When the point `to` was: milliseconds since 1970, UTC.
    pub time: u64,
    /// The writer's epoch when the point `to` was made.
    pub epoch: u32,
    /// Tells the parts of two attempts at the same segment apart.
    pub run: u32,
    /// What the point `to` is.
    pub kind: Kind,
    /// Which part, from 0.
    pub part: u32,
    /// Whether it is the last, which makes the segment exist.
    pub last: bool,
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, from, to, time, epoch, run, part, .. } = self;
        let kind = if self.kind == Kind::Cut { 'c' } else { 'p' };
        let end = if self.last { 'e' } else { 'm' };
        write!(
            f,
            "h/{stream}/s/{to:016x}-{from:016x}-{time:012x}-{epoch:08x}-{run:08x}-{kind}-{part:06x}{end}"
        )
    }
}

impl FromStr for PartName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        parse_part(text).ok_or_else(|| BadName(text.to_owned()))
    }
}

fn parse_part(text: &str) -> Option<PartName> {
    let (stream, rest) = text.strip_prefix("h/")?.split_once("/s/")?;
    let mut fields = rest.split('-');
    let mut number = |digits| hex(fields.next()?, digits);
    let (to, from, time) = (number(16)?, number(16)?, number(12)?);
    let (epoch, run) = (u32::try_from(number(8)?).ok()?, u32::try_from(number(8)?).ok()?);
    let kind = match fields.next()? {
        "c" => Kind::Cut,
        "p" => Kind::Partial,
        _ => return None,
    };
    let tail = fields.next()?;
    let (part, end) = tail.split_at_checked(6)?;
    let part = u32::try_from(hex(part, 6)?).ok()?;
    let last = match end {
        "e" => true,
        "m" => false,
        _ => return None,
    };
    if fields.next().is_some() || from >= to {
        return None;
    }
    Some(PartName { stream: stream.parse().ok()?, from, to, time, epoch, run, kind, part, last })
}

/// The name of the object that says where an epoch of a stream began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EraName {
    /// Whose history.
    pub stream: StreamId,
    /// The epoch.
    pub epoch: u32,
    /// The last point before it.
    pub after: u64,
}

impl fmt::Display for EraName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h/{}/e/{:08x}-{:016x}", self.stream, self.epoch, self.after)
    }
}

impl FromStr for EraName {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let parse = || {
            let (stream, rest) = text.strip_prefix("h/")?.split_once("/e/")?;
            let (epoch, after) = rest.split_once('-')?;
            let epoch = u32::try_from(hex(epoch, 8)?).ok()?;
            Some(Self { stream: stream.parse().ok()?, epoch, after: hex(after, 16)? })
        };
        parse().ok_or_else(|| BadName(text.to_owned()))
    }
}
