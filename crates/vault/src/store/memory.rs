//! A store in memory, for tests: with faults that are scripted or drawn from a seed, and a gate that stops every call.

use super::{
    Abilities, Ability, Created, Object, Store, StoreError, StoreResult, check_name, check_prefix,
    check_range, probe_conditional,
};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`Store::create`]
    Create,
    /// [`Store::replace`]
    Replace,
    /// [`Store::read`]
    Read,
    /// [`Store::size`]
    Size,
    /// [`Store::list`]
    List,
    /// [`Store::delete`]
    Delete,
}

impl Op {
    fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Read => "read",
            Self::Size => "size",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// One call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub op: Op,
    /// The object or prefix.
    pub name: String,
    /// Whether the call was carried out (also when its answer was lost).
    pub done: bool,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing was done.
    FailBefore,
    /// It is done, and the acknowledgement is lost.
    FailAfter,
    /// It takes this long.
    Stall(Duration),
    /// One bit of what is read is another one: of the byte at this place, modulo the length.
    FlipByte(u64),
    /// The object is not there (only this once).
    Missing,
    /// There is no space.
    NoSpace,
}

/// A scripted fault: the `after`-th matching call from now on (0 is the next), `times` times.
#[derive(Debug)]
struct Script {
    op: Option<Op>,
    prefix: String,
    after: u64,
    times: u64,
    fault: Fault,
}

/// A small generator, so that what goes wrong can be had again from its seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    calls: Vec<Call>,
    scripts: Vec<Script>,
    random: Option<(Dice, u64)>,
    absent: bool,
    held: bool,
    unconditional: bool,
    capacity: Option<u64>,
}

/// A store in memory. Clones share the objects and the faults.
#[derive(Clone)]
pub struct MemoryStore {
    url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("objects", &self.state().objects.len()).finish()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self { url: "memory:".to_owned(), shared: Arc::default() }
    }

    /// The `after`-th (0: the next) call of this kind (`None`: any) on a name with this prefix has a fault.
    pub fn inject(&self, op: Option<Op>, prefix: &str, after: u64, fault: Fault) {
        self.inject_times(op, prefix, after, 1, fault);
    }

    /// Like [`MemoryStore::inject`], for so many calls in a row.
    pub fn inject_times(&self, op: Option<Op>, prefix: &str, after: u64, times: u64, fault: Fault) {
        self.state().scripts.push(Script { op, prefix: prefix.to_owned(), after, times, fault });
    }

    /// From now on about one call in `one_in` fails, half of them after it was done. 0 ends it.
    pub fn fail_at_random(&self, seed: u64, one_in: u64) {
        self.state().random = (one_in > 0).then_some((Dice(seed), one_in));
    }

    /// While absent, every call fails and nothing is done.
    pub fn set_absent(&self, absent: bool) {
        self.state().absent = absent;
    }

    /// While held, every call waits before it does anything.
    pub fn hold(&self, held: bool) {
        self.state().held = held;
        self.shared.1.notify_all();
    }

    /// A store that ignores the condition of a creation, as some do: an object is replaced.
    pub fn without_conditions(&self) {
        self.state().unconditional = true;
    }

    /// Creations that would bring the objects above so many bytes find no space. `None`: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Changes an object at rest, as a bad disk would; `false` if there is none.
    pub fn corrupt(&self, name: &str, at: usize) -> bool {
        let mut state = self.state();
        let Some(body) = state.objects.get_mut(name) else { return false };
        *body = flip(body, at as u64);
        true
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.state().calls.clear();
    }

    /// All objects, without a call.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state().objects.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, op: Op, name: &str, why: &str) -> StoreError {
        StoreError::Failed {
            store: self.url.clone(),
            op: op.word(),
            name: name.to_owned(),
            why: format!("injected: {why}"),
        }
    }

    /// Makes a call: finds out what goes wrong with it, and does it under the lock, so that calls have one order.
    fn call<T>(
        &self,
        op: Op,
        name: &str,
        act: impl FnOnce(&mut State) -> StoreResult<T>,
    ) -> StoreResult<(T, Option<Fault>)> {
        let mut state = self.state();
        let fault = state.fault(op, name);
        if let Some(Fault::Stall(time)) = fault {
            drop(state);
            std::thread::sleep(time);
            state = self.state();
        }
        while state.held {
            state = self.shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let before = if state.absent { Some("the store is absent") } else { None }
            .or_else(|| (fault == Some(Fault::FailBefore)).then_some("failed before"));
        let done = before.is_none() && !matches!(fault, Some(Fault::Missing | Fault::NoSpace));
        state.calls.push(Call { op, name: name.to_owned(), done });
        if let Some(why) = before {
            return Err(self.failed(op, name, why));
        }
        match fault {
            Some(Fault::Missing) => {
                return Err(StoreError::NotFound { store: self.url.clone(), name: name.to_owned() });
            }
            Some(Fault::NoSpace) => return Err(self.no_space(name)),
            _ => {}
        }
        let answer = act(&mut state);
        if fault == Some(Fault::FailAfter) {
            return Err(self.failed(op, name, "the acknowledgement is lost"));
        }
        Ok((answer?, fault))
    }

    fn no_space(&self, name: &str) -> StoreError {
        StoreError::NoSpace {
            store: self.url.clone(),
            name: name.to_owned(),
            why: "the store is full".to_owned(),
        }
    }

    fn put(&self, state: &mut State, name: &str, body: Bytes) -> StoreResult<()> {
        if let Some(capacity) = state.capacity {
            let used: u64 = state.objects.values().map(|b| b.len() as u64).sum();
            if used + body.len() as u64 > capacity {
                return Err(self.no_space(name));
            }
        }
        state.objects.insert(name.to_owned(), body);
        Ok(())
    }
}

impl State {
    fn fault(&mut self, op: Op, name: &str) -> Option<Fault> {
        let mut found = None;
        for script in &mut self.scripts {
            if script.op.is_some_and(|o| o != op) || !name.starts_with(&script.prefix) {
                continue;
            }
            if script.after > 0 {
                script.after -= 1;
            } else if found.is_none() && script.times > 0 {
                script.times -= 1;
                found = Some(script.fault);
            }
        }
        self.scripts.retain(|s| s.times > 0);
        if found.is_none()
            && let Some((dice, one_in)) = &mut self.random
            && dice.roll(*one_in) == 0
        {
            found = Some(if dice.roll(2) == 0 { Fault::FailBefore } else { Fault::FailAfter });
        }
        found
    }
}

fn flip(body: &Bytes, at: u64) -> Bytes {
    let mut bytes = body.to_vec();
    if !bytes.is_empty() {
        let at = (at % bytes.len() as u64) as usize;
        bytes[at] ^= 1;
    }
    bytes.into()
}

impl Store for MemoryStore {
    fn url(&self) -> &str {
        &self.url
    }

    fn create(&self, name: &str, body: Bytes) -> StoreResult<Created> {
        check_name(&self.url, name)?;
        let answer = self.call(Op::Create, name, |state| {
            if state.objects.contains_key(name) && !state.unconditional {
                return Ok(Created::Exists);
            }
            self.put(state, name, body).map(|()| Created::New)
        });
        answer.map(|(created, _)| created)
    }

    fn replace(&self, name: &str, body: Bytes) -> StoreResult<()> {
        check_name(&self.url, name)?;
        self.call(Op::Replace, name, |state| self.put(state, name, body)).map(|_| ())
    }

    fn read(&self, name: &str, range: Option<Range<u64>>) -> StoreResult<Bytes> {
        check_name(&self.url, name)?;
        let (body, fault) = self.call(Op::Read, name, |state| {
            let body = state
                .objects
                .get(name)
                .ok_or_else(|| StoreError::NotFound { store: self.url.clone(), name: name.to_owned() })?;
            let Some(range) = range else { return Ok(body.clone()) };
            check_range(&self.url, name, &range, body.len() as u64)?;
            Ok(body.slice(range.start as usize..range.end as usize))
        })?;
        Ok(if let Some(Fault::FlipByte(at)) = fault { flip(&body, at) } else { body })
    }

    fn size(&self, name: &str) -> StoreResult<Option<u64>> {
        check_name(&self.url, name)?;
        let answer =
            self.call(Op::Size, name, |state| Ok(state.objects.get(name).map(|body| body.len() as u64)));
        match answer {
            Err(e) if e.is_not_found() => Ok(None),
            other => other.map(|(size, _)| size),
        }
    }

    fn list(&self, prefix: &str) -> StoreResult<Vec<Object>> {
        check_prefix(&self.url, prefix)?;
        let answer = self.call(Op::List, prefix, |state| {
            let below =
                state.objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
            Ok(below.map(|(name, body)| Object { name: name.clone(), size: body.len() as u64 }).collect())
        });
        match answer {
            Err(e) if e.is_not_found() => Ok(Vec::new()),
            other => other.map(|(objects, _)| objects),
        }
    }

    fn delete(&self, name: &str) -> StoreResult<()> {
        check_name(&self.url, name)?;
        let answer = self.call(Op::Delete, name, |state| {
            state.objects.remove(name);
            Ok(())
        });
        match answer {
            Err(e) if e.is_not_found() => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn abilities(&self) -> StoreResult<Abilities> {
        Ok(Abilities {
            conditional_put: probe_conditional(self)?,
            versions: Ability::No,
            object_lock: Ability::No,
            notes: vec!["objects are lost when the process ends".to_owned()],
        })
    }
}
