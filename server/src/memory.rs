//! How much memory is in use, and whether a write may add to it.
//!
//! Reading the heap's live bytes costs a walk over its slabs, so the limit is checked against an
//! estimate: the last reading, plus how much the keyspace has grown since, plus the request at hand.
//! While that is below the limit a check is two relaxed loads. When it is not, the heap is read
//! again (at most once in `FRESH`) before anything is refused.
//!
//! How far memory can pass the limit: at most what happens between two readings and is not seen by
//! the keyspace's account, which is buffers of connections and tables that double, plus
//! [`DRIFT_STEP`](crate::keyspace::DRIFT_STEP) per shard, plus one request per worker that passed the
//! check at the same moment. Readings are at most [`SAMPLE`] apart.
//!
//! With another allocator than Flagstone there are no live bytes to read; the reading is then the
//! keyspace's own account of keys, values and tables, and the limit is on that.

use std::time::{Duration, Instant};

use flagstone::Heap;
use flagstone::stats::ByteTotals;

use crate::keyspace::Keyspace;
use crate::settings::Tunables;
use crate::shared::Shared;
use crate::sync::{Counter, Mutex};

/// Longest time between two readings while there is a limit; ten times that without one.
pub const SAMPLE: Duration = Duration::from_millis(100);

/// Time during which a reading counts as fresh enough to refuse a write.
const FRESH: Duration = Duration::from_millis(1);

/// Where [`Gauge`] gets the bytes in use from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The heap's live bytes: everything that the process allocated.
    Heap,
    /// Keys, values and tables as the keyspace accounts for them.
    Dataset,
}

impl Source {
    /// The name that `INFO` and metrics show.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Dataset => "dataset",
        }
    }
}

/// The estimate and its last reading.
#[derive(Debug)]
pub struct Gauge {
    source: Source,
    /// The last reading.
    read: Counter,
    /// Largest reading, and what was in use at start.
    peak: Counter,
    at_start: u64,
    reading: Mutex<Option<Instant>>,
}

/// The write would pass the memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit;

impl Gauge {
    /// A gauge that reads from the heap if `heap_serves`, else from the keyspace.
    pub fn new(heap_serves: bool, keyspace: &Keyspace) -> Self {
        let mut gauge = Self {
            source: if heap_serves { Source::Heap } else { Source::Dataset },
            read: Counter::new(),
            peak: Counter::new(),
            at_start: 0,
            reading: Mutex::new(None),
        };
        gauge.at_start = gauge.sample(keyspace);
        gauge
    }

    /// Where the figures come from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether a write of `request` bytes may run. Before it is refused, `reclaim` is to free what was
    /// deleted and nobody reads any more.
    ///
    /// # Errors
    /// [`OverLimit`] if a fresh reading, the growth since and the request pass the limit.
    #[inline]
    pub fn admit(
        &self,
        request: usize,
        keyspace: &Keyspace,
        tunables: &Tunables,
        reclaim: impl FnOnce(),
    ) -> Result<(), OverLimit> {
        let limit = tunables.maxmemory.get();
        if limit == 0 || self.estimate(keyspace) + request as u64 <= limit {
            return Ok(());
        }
        self.admit_closely(request, keyspace, limit, reclaim)
    }

    #[cold]
    fn admit_closely(
        &self,
        request: usize,
        keyspace: &Keyspace,
        limit: u64,
        reclaim: impl FnOnce(),
    ) -> Result<(), OverLimit> {
        let last = *self.reading.lock();
        if last.is_none_or(|last| last.elapsed() >= FRESH) {
            // What was deleted and is not being read any more must not count.
            reclaim();
            self.sample(keyspace);
        }
        if self.estimate(keyspace) + request as u64 <= limit { Ok(()) } else { Err(OverLimit) }
    }

    /// Reads the bytes in use now.
    pub fn sample(&self, keyspace: &Keyspace) -> u64 {
        // One reader at a time: the account must not be taken by one and added to by another.
        let mut reading = self.reading.lock();
        keyspace.account().take();
        let bytes = match self.source {
            Source::Heap => Heap::global().live_bytes(),
            Source::Dataset => {
                let figures = keyspace.figures();
                (figures.dataset_bytes + figures.overhead_bytes) as u64
            }
        };
        self.read.set(bytes);
        self.peak.raise(bytes);
        *reading = Some(Instant::now());
        bytes
    }

    /// Largest reading so far. A peak between two readings (see [`SAMPLE`]) is not seen.
    pub fn peak(&self) -> u64 {
        self.peak.get()
    }

    /// Bytes in use when the server started.
    pub fn at_start(&self) -> u64 {
        self.at_start
    }

    /// Bytes in use by the estimate. Two loads.
    pub fn estimate(&self, keyspace: &Keyspace) -> u64 {
        self.read.get().saturating_add_signed(keyspace.account().growth())
    }
}

/// Where the memory is, read at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Bytes in use; what they are depends on `source`.
    pub used: u64,
    /// Where `used` comes from.
    pub source: Source,
    /// Largest `used` seen, this one included.
    pub peak: u64,
    /// `used` when the server started.
    pub at_start: u64,
    /// Resident bytes of the process, where the system tells.
    pub resident: Option<u64>,
    /// Bytes of keys and values.
    pub dataset: u64,
    /// Bytes of tables and deadlines.
    pub tables: u64,
    /// Bytes of connections: read buffers, reply queues, messages that wait.
    pub connections: u64,
    /// Keys.
    pub keys: u64,
    /// The limit; 0 for none.
    pub limit: u64,
    /// Totals of the heap, where Flagstone serves.
    pub heap: Option<ByteTotals>,
}

impl Figures {
    /// Reads everything. Costs a walk over the heap's slabs and over the connections.
    pub fn read(shared: &Shared) -> Self {
        let data = shared.keyspace.figures();
        let (dataset, tables) = (data.dataset_bytes as u64, data.overhead_bytes as u64);
        let source = shared.gauge.source();
        let heap = (source == Source::Heap).then(|| Heap::global().snapshot().bytes);
        let used = heap.map_or(dataset + tables, |bytes| bytes.live);
        shared.gauge.peak.raise(used);
        Self {
            used,
            source,
            peak: shared.gauge.peak(),
            at_start: shared.gauge.at_start(),
            resident: heap.and_then(|bytes| bytes.resident).or_else(resident_bytes),
            dataset,
            tables,
            connections: shared.keyspace.with_participant(|participant| {
                shared.clients.all(&participant.pin()).iter().map(|client| client.held()).sum()
            }),
            keys: data.keys as u64,
            limit: shared.tunables.maxmemory.get(),
            heap,
        }
    }

    /// What is in use and is neither a key nor a value.
    pub fn overhead(&self) -> u64 {
        self.used.saturating_sub(self.dataset)
    }

    /// Resident bytes for each byte in use.
    pub fn fragmentation(&self) -> Option<f64> {
        self.resident.map(|resident| ratio(resident, self.used))
    }
}

/// `a / b`, or zero if there is no `b`.
pub fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// Resident bytes of the process, as the system tells them; `None` where it does not.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::DRIFT_STEP;
    use crate::keyspace::entry::Entry;
    use crate::settings::Settings;

    fn set(keyspace: &Keyspace, name: &[u8], bytes: usize) {
        let db = keyspace.db(0);
        let key = db.key(name);
        let entry = Entry::try_string(&key, &vec![b'x'; bytes], None).unwrap();
        keyspace.with_participant(|p| db.lock(&key, &p.pin()).set(&key, entry, 0));
    }

    #[test]
    fn writes_are_refused_at_the_limit_and_admitted_after_deletes() {
        let keyspace = Keyspace::new(1, 4);
        let gauge = Gauge::new(false, &keyspace);
        let tunables = Tunables::new(&Settings::default());
        assert_eq!(
            gauge.admit(usize::MAX / 2, &keyspace, &tunables, || keyspace.collect()),
            Ok(())
        );
        tunables.maxmemory.set(1 << 20);
        assert_eq!(gauge.admit(1000, &keyspace, &tunables, || keyspace.collect()), Ok(()));
        assert_eq!(
            gauge.admit(2 << 20, &keyspace, &tunables, || keyspace.collect()),
            Err(OverLimit)
        );
        let mut written = 0;
        while gauge.admit(10_000, &keyspace, &tunables, || keyspace.collect()).is_ok() {
            set(&keyspace, format!("k{written}").as_bytes(), 10_000);
            written += 1;
            assert!(written < 200, "never refused");
        }
        assert!(written > 80, "refused after {written} writes of 10 kB at a limit of 1 MiB");
        let db = keyspace.db(0);
        for i in 0..written / 2 {
            let name = format!("k{i}");
            let key = db.key(name.as_bytes());
            keyspace.with_participant(|p| db.lock(&key, &p.pin()).remove(&key, 0).is_some());
        }
        // What was deleted shows in the account at once, up to one step per shard.
        assert_eq!(gauge.admit(10_000, &keyspace, &tunables, || keyspace.collect()), Ok(()));
        // Unseen by the account: a step per shard, tables, and the rounding of the last block.
        let unseen = 4 * DRIFT_STEP as u64 + keyspace.figures().overhead_bytes as u64 + 4096;
        assert!(gauge.peak() <= (1 << 20) + unseen, "{}", gauge.peak());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_is_resident() {
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        assert!(resident_bytes().unwrap() > 32 << 20);
        drop(block);
    }
}
