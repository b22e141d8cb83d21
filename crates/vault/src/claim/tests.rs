use super::*;
use crate::store::{Abilities, MemoryStore, Object, Op};
use bytes::Bytes;
use std::ops::Range;
use std::sync::{Condvar, Mutex};

fn writer(node: &str) -> Writer {
    Writer {
        node: node.to_owned(),
        host: format!("host-{node}"),
        boot_id: "b".to_owned(),
        since: "2025-01-02T03:04:05Z".parse().unwrap(),
        version: "0.1.0".to_owned(),
    }
}

#[test]
fn a_vault_has_one_writer() {
    let store = MemoryStore::new();
    let (a, b) = (writer("a"), writer("b"));
    assert_eq!(claim(&store, &a, false).unwrap(), Epoch(1));
    let error = claim(&store, &b, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "memory:: host-a (node a) has been writing to this vault since 2025-01-02T03:04:05Z; if it is gone for good, or \
         must not write any more, take the vault over with --take-over"
    );
    assert!(still_mine(&store, Epoch(1)).unwrap());
    assert_eq!(claim(&store, &a, false).unwrap(), Epoch(2), "a restart");
    assert_eq!(claim(&store, &b, true).unwrap(), Epoch(3));
    assert!(!still_mine(&store, Epoch(1)).unwrap());
    assert!(!still_mine(&store, Epoch(2)).unwrap());
    assert!(still_mine(&store, Epoch(3)).unwrap());
    assert!(matches!(claim(&store, &a, false), Err(ClaimError::Taken { epoch: Epoch(3), .. })));
}

#[test]
fn an_unreadable_claim_is_someone_elses() {
    let store = MemoryStore::new();
    store.replace("w/00000005", "{".into()).unwrap();
    assert!(matches!(
        claim(&store, &writer("a"), false),
        Err(ClaimError::Unreadable { epoch: Epoch(5), .. })
    ));
    assert_eq!(claim(&store, &writer("a"), true).unwrap(), Epoch(6));
}

#[test]
fn old_claims_go_and_deceive_nobody() {
    let store = MemoryStore::new();
    let zombie = claim(&store, &writer("z"), false).unwrap();
    claim(&store, &writer("a"), true).unwrap();
    for _ in 0..100 {
        claim(&store, &writer("a"), false).unwrap();
    }
    let left: Vec<u32> = epochs(&store).unwrap().iter().map(|e| e.0).collect();
    assert_eq!(left, [1, 2, 95, 96, 97, 98, 99, 100, 101, 102]);
    assert!(!still_mine(&store, zombie).unwrap(), "who slept through all this is told");
}

#[test]
fn a_claim_after_the_newest_of_every_node_stays() {
    proptest::proptest!(|(nodes in proptest::collection::vec(0u8..4, 1..60))| {
        let store = MemoryStore::new();
        let mut newest = BTreeMap::new();
        for node in nodes {
            let node = node.to_string();
            let epoch = claim(&store, &writer(&node), true).unwrap();
            newest.insert(node, epoch);
            for mine in newest.values() {
                proptest::prop_assert_eq!(still_mine(&store, *mine).unwrap(), *mine == epoch);
            }
        }
        proptest::prop_assert!(epochs(&store).unwrap().len() <= KEPT + 2 * newest.len());
    });
}

/// Lets two threads make one call each in an order that is given.
struct Turns {
    state: Mutex<(Vec<usize>, [bool; 2])>,
    changed: Condvar,
}

impl Turns {
    fn take(&self, who: usize) {
        let mut state = self.state.lock().unwrap();
        loop {
            let (order, ended) = &mut *state;
            match order.last() {
                Some(next) if *next == who => {
                    order.pop();
                    break;
                }
                // The other one has no calls left to make.
                Some(next) if ended[*next] => {
                    order.pop();
                }
                None => break,
                Some(_) => state = self.changed.wait(state).unwrap(),
            }
        }
        self.changed.notify_all();
    }

    fn end(&self, who: usize) {
        self.state.lock().unwrap().1[who] = true;
        self.changed.notify_all();
    }
}

/// One thread's view of the store.
struct Stepped<'a> {
    store: &'a MemoryStore,
    turns: &'a Turns,
    who: usize,
}

impl fmt::Debug for Stepped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.who)
    }
}

impl Stepped<'_> {
    /// The next call is made when it is this thread's turn. Which call of the store it became is told.
    fn step<T>(&self, act: impl FnOnce(&MemoryStore) -> T) -> T {
        self.turns.take(self.who);
        act(self.store)
    }
}

impl Store for Stepped<'_> {
    fn url(&self) -> &str {
        self.store.url()
    }
    fn create(&self, name: &str, body: Bytes) -> StoreResult<Created> {
        self.step(|s| s.create(name, body))
    }
    fn replace(&self, name: &str, body: Bytes) -> StoreResult<()> {
        self.step(|s| s.replace(name, body))
    }
    fn read(&self, name: &str, range: Option<Range<u64>>) -> StoreResult<Bytes> {
        self.step(|s| s.read(name, range))
    }
    fn size(&self, name: &str) -> StoreResult<Option<u64>> {
        self.step(|s| s.size(name))
    }
    fn list(&self, prefix: &str) -> StoreResult<Vec<Object>> {
        self.step(|s| s.list(prefix))
    }
    fn delete(&self, name: &str) -> StoreResult<()> {
        self.step(|s| s.delete(name))
    }
    fn abilities(&self) -> StoreResult<Abilities> {
        self.store.abilities()
    }
}

/// What one writer did: its epochs, and what it acknowledged under each.
type Deeds = Vec<(Epoch, Vec<String>)>;

/// Claims, then puts and asks until told to stop or out of luck; once or twice.
fn live(store: &Stepped<'_>, take_over: bool, lives: usize) -> Deeds {
    let name = ["a", "b"][store.who];
    let mut deeds = Deeds::new();
    for life in 0..lives {
        let Ok(epoch) = claim(store, &writer(name), take_over) else { continue };
        let mut acknowledged = Vec::new();
        for n in 0..3 {
            let object = format!("h/{name}-{life}-{n}");
            store.create(&object, Bytes::from_static(b"x")).unwrap();
            if !still_mine(store, epoch).unwrap() {
                break;
            }
            acknowledged.push(object);
        }
        deeds.push((epoch, acknowledged));
    }
    store.turns.end(store.who);
    deeds
}

fn run(order: Vec<usize>, earlier: bool, take_over: [bool; 2], lives: usize) {
    let shown = format!("{order:?} {earlier} {take_over:?} {lives}");
    let store = MemoryStore::new();
    if earlier {
        claim(&store, &writer("before"), false).unwrap();
        store.forget_calls();
    }
    let turns = Turns { state: Mutex::new((order, [false; 2])), changed: Condvar::new() };
    let (turns, shared) = (&turns, &store);
    let deeds: Vec<Deeds> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|who| {
                scope.spawn(move || live(&Stepped { store: shared, turns, who }, take_over[who], lives))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let mut all: Vec<Epoch> = deeds.iter().flatten().map(|(epoch, _)| *epoch).collect();
    let claims = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), claims, "two have one epoch: {shown}");
    // In the order of the store's calls, what is acknowledged was put before any later claim was made.
    let calls = store.calls();
    let made = |name: &str| calls.iter().position(|c| c.op == Op::Create && c.name == name).unwrap();
    for (epoch, acknowledged) in deeds.iter().flatten() {
        for later in all.iter().filter(|later| *later > epoch) {
            for object in acknowledged {
                assert!(made(object) < made(&later.object()), "{object} of {epoch} against {later}: {shown}");
            }
        }
    }
}

#[test]
fn whatever_the_order_nothing_is_acknowledged_too_late() {
    // All orders of the first twelve turns; then the first one goes on alone, or both as they come.
    for earlier in [false, true] {
        for bits in 0u32..1 << 12 {
            let order = (0..12).map(|i| (bits >> i & 1) as usize).collect();
            run(order, earlier, [bits % 3 == 0 || earlier, true], 1);
        }
    }
}

#[test]
fn random_orders_of_longer_lives_too() {
    use ring::rand::SecureRandom;
    let mut seed = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    println!("seed {seed}");
    let mut state = seed | 1;
    for _ in 0..1000 {
        let mut order = Vec::new();
        for _ in 0..60 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            order.push((state >> 40 & 1) as usize);
        }
        run(order, state & 1 == 0, [state & 2 == 0, state & 4 == 0], 3);
    }
}
