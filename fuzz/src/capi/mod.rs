//! The C interface called in any order with any arguments that its contracts allow, wrong ones included.
//!
//! Owns the script and the oracles: a bad argument gives the documented status and changes nothing;
//! outputs are written on every path; blocks are aligned, large enough and keep their contents; a freed
//! heap gives back what it took. What a contract forbids (a block freed twice, say) ends the process,
//! and is tested in child processes instead.

mod blocks;

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;

use arbitrary::{Arbitrary, Unstructured};
use flagstone_capi_calls as c;

use blocks::Blocks;

/// Calls that are made at most.
const CALLS: usize = 200;
/// Heaps of a script's own; one more stands for the process's.
const HEAPS: usize = 3;
/// Bytes of a block of the malloc family that are written to: larger ones may well be had, address space
/// being plenty.
const TOUCHED: usize = 4 << 20;
/// What no call leaves in an output.
const UNWRITTEN: u64 = 0x5EED_5EED_5EED_5EED;

/// One call, or a few that belong together.
#[derive(Arbitrary, Clone, Debug)]
enum Call {
    Make { at: u8, options: Options },
    End { at: u8 },
    Alloc { heap: u8, size: usize, align: u16 },
    Small { heap: u8, size: u16, shift: u8 },
    Realloc { heap: u8, which: u8, size: u32 },
    Free { heap: u8, which: u8 },
    FreeWrongly { heap: u8, which: u8, align: u16 },
    Retire { heap: u8, which: u8 },
    Enter { heap: u8 },
    Leave { heap: u8 },
    Advance { heap: u8, tells: bool },
    Collect { heap: u8, tells: bool },
    Purge { heap: u8, tells: bool },
    Stats { heap: u8, tells: bool },
    Json { room: u16, is_null: bool },
    JsonOwned { tells: bool },
    Port { heap: u8, size: u16, tells: bool },
    HighWater { heap: u8 },
    UsableSize { address: usize },
    Malloc { call: Family, size: usize, other: usize },
    Nulls,
}

/// A call of the malloc family that gives a block.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Family {
    Malloc,
    Calloc,
    Reallocarray,
    PosixMemalign,
    AlignedAlloc,
    Memalign,
    Valloc,
    Pvalloc,
}

/// What a heap is asked to be.
#[derive(Arbitrary, Clone, Debug)]
struct Options {
    given: bool,
    name: Option<Vec<u8>>,
    cap: u32,
    classes: Vec<u16>,
    no_classes_but_a_count: bool,
    shards: u8,
    source: Source,
    written: bool,
}

/// Where the memory of a heap is to come from.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Source {
    Pages,
    Region { kibibytes: u16 },
    RegionAndPort,
    Port,
    PortWithout { alloc: bool, free: bool },
}

struct Made {
    heap: *mut c::CHeap,
    /// Freed after the heap, whose memory it is.
    _region: Vec<u8>,
    blocks: Blocks,
    guards: usize,
}

/// Makes the calls that some bytes stand for.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut world =
        World { process: Made::of(ptr::null_mut(), Vec::new()), heaps: [const { None }; HEAPS] };
    for _ in 0..CALLS {
        let Ok(call) = Call::arbitrary(&mut input) else { break };
        world.make(call);
        if input.is_empty() {
            break;
        }
    }
    world.heaps.into_iter().flatten().for_each(Made::end);
    world.process.end();
}

/// The heaps there are.
struct World {
    process: Made,
    heaps: [Option<Made>; HEAPS],
}

fn slot(at: u8) -> usize {
    usize::from(at) % HEAPS
}

impl World {
    fn of(&mut self, heap: u8) -> &mut Made {
        match self.heaps[slot(heap)].as_mut() {
            Some(made) if heap < 200 => made,
            _ => &mut self.process,
        }
    }

    fn end(&mut self, at: u8) {
        if let Some(made) = self.heaps[slot(at)].take() {
            made.end();
        }
    }

    fn make(&mut self, call: Call) {
        match call {
            Call::Make { at, options } => {
                self.end(at);
                self.heaps[slot(at)] = options.make();
            }
            Call::End { at } => self.end(at),
            Call::Alloc { heap, size, align } => self.of(heap).alloc(size, usize::from(align)),
            Call::Small { heap, size, shift } => {
                self.of(heap).alloc(usize::from(size), 1 << (shift % 13));
            }
            Call::Realloc { heap, which, size } => {
                let made = self.of(heap);
                made.blocks.realloc(made.heap, which, size as usize % (3 << 20));
            }
            Call::Free { heap, which } => {
                let made = self.of(heap);
                made.blocks.free(made.heap, which);
            }
            Call::FreeWrongly { heap, which, align } => {
                let made = self.of(heap);
                made.blocks.free_with_no_layout(made.heap, which, usize::from(align));
            }
            Call::Retire { heap, which } => {
                let made = self.of(heap);
                made.blocks.retire(made.heap, which);
            }
            Call::Enter { heap } => {
                let made = self.of(heap);
                // SAFETY: null or in use, here and below.
                assert_eq!(unsafe { c::flagstone_enter(made.heap) }, c::FLAGSTONE_OK);
                made.guards += 1;
            }
            Call::Leave { heap } => self.of(heap).leave(),
            Call::Advance { heap, tells } => {
                let heap = self.of(heap).heap;
                // SAFETY: the heap is null or in use, the place valid or null.
                told(tells, |out| unsafe { c::flagstone_advance(heap, out) });
            }
            Call::Collect { heap, tells } => {
                let heap = self.of(heap).heap;
                // SAFETY: as above.
                told(tells, |out| unsafe { c::flagstone_collect(heap, out) });
            }
            Call::Purge { heap, tells } => {
                let mut report = c::PurgeReport { bytes_purged: UNWRITTEN, ..Default::default() };
                let out = if tells { &raw mut report } else { ptr::null_mut() };
                // SAFETY: the heap is null or in use, the report valid or null.
                let status = unsafe { c::flagstone_heap_purge(self.of(heap).heap, out) };
                assert_eq!(status, c::FLAGSTONE_OK);
                assert_eq!(report.bytes_purged == UNWRITTEN, !tells);
            }
            Call::Stats { heap, tells } => self.of(heap).stats(tells),
            Call::Json { room, is_null } => json(usize::from(room), is_null),
            Call::JsonOwned { tells } => json_owned(tells),
            Call::Port { heap, size, tells } => port(self.of(heap).heap, usize::from(size), tells),
            Call::HighWater { heap } => {
                // SAFETY: null or in use.
                let status = unsafe { c::flagstone_high_water_reset(self.of(heap).heap) };
                assert_eq!(status, c::FLAGSTONE_OK);
            }
            // Any address may be asked about; what the answer is depends on where memory lies.
            Call::UsableSize { address } => {
                let address = ptr::without_provenance_mut::<c_void>(address);
                let held = c::flagstone_usable_size(address);
                // SAFETY: no other thread frees anything.
                assert_eq!(held, unsafe { c::malloc_usable_size(address) });
            }
            Call::Malloc { call, size, other } => malloc(call, size, other),
            Call::Nulls => nulls(),
        }
    }
}

/// Calls with an output for a number, or without one.
fn told(tells: bool, call: impl FnOnce(*mut u64) -> c_int) {
    let mut number = UNWRITTEN;
    let out = if tells { &raw mut number } else { ptr::null_mut() };
    assert_eq!(call(out), c::FLAGSTONE_OK);
    assert_eq!(number == UNWRITTEN, !tells, "an output is written if there is one");
}

impl Made {
    fn of(heap: *mut c::CHeap, region: Vec<u8>) -> Self {
        Self { heap, _region: region, blocks: Blocks::default(), guards: 0 }
    }

    fn alloc(&mut self, size: usize, align: usize) {
        // Sizes that can be had stay small, so that a script cannot use all memory up.
        let size = if size <= isize::MAX as usize / 2 { size % (2 << 20) } else { size };
        self.blocks.alloc(self.heap, size, align);
    }

    fn leave(&mut self) {
        // SAFETY: null or in use.
        let status = unsafe { c::flagstone_leave(self.heap) };
        let expected = if self.guards > 0 { c::FLAGSTONE_OK } else { c::FLAGSTONE_INVALID };
        assert_eq!(status, expected, "{} guards", self.guards);
        self.guards = self.guards.saturating_sub(1);
    }

    fn stats(&self, tells: bool) {
        let mut stats = c::Stats { live: UNWRITTEN, ..Default::default() };
        let out = if tells { &raw mut stats } else { ptr::null_mut() };
        // SAFETY: the heap is null or in use, the place valid or null.
        let status = unsafe { c::flagstone_stats(self.heap, out) };
        if !tells {
            return assert_eq!(status, c::FLAGSTONE_INVALID);
        }
        assert_eq!(status, c::FLAGSTONE_OK);
        assert!(stats.live >= self.blocks.bytes() as u64, "{stats:?}");
        assert!(stats.allocs >= stats.frees, "{stats:?}");
        // Active slabs count whole, with the parts of them that have no pages and are retained.
        assert!(stats.mapped + stats.retained >= stats.active, "{stats:?}");
    }

    fn end(mut self) {
        while self.guards > 0 {
            self.leave();
        }
        self.blocks.free_all(self.heap);
        // SAFETY: null or in use; nothing of it is used afterwards.
        assert_eq!(unsafe { c::flagstone_heap_free(self.heap) }, c::FLAGSTONE_OK);
    }
}

impl Options {
    /// Makes the heap, if it can be made.
    fn make(&self) -> Option<Made> {
        let name = self.name.as_ref().map(|name| {
            CString::new(name.iter().copied().filter(|&byte| byte != 0).collect::<Vec<u8>>())
                .expect("without NUL")
        });
        let classes: Vec<usize> = self.classes.iter().map(|&bytes| usize::from(bytes)).collect();
        let mut region = match self.source {
            Source::Region { kibibytes } => vec![0x77; usize::from(kibibytes) << 10],
            Source::RegionAndPort => vec![0x77; 8 << 20],
            _ => Vec::new(),
        };
        let mut ours = std::mem::MaybeUninit::uninit();
        // SAFETY: the place is valid, and then written.
        let mut port = unsafe {
            assert_eq!(c::flagstone_port_view(ptr::null(), ours.as_mut_ptr()), c::FLAGSTONE_OK);
            ours.assume_init()
        };
        let has_port = matches!(
            self.source,
            Source::Port | Source::PortWithout { .. } | Source::RegionAndPort
        );
        if let Source::PortWithout { alloc, free } = self.source {
            port.alloc = port.alloc.filter(|_| !alloc);
            port.free = port.free.filter(|_| !free);
        }
        let options = c::HeapOptions {
            name: name.as_ref().map_or(ptr::null(), |name| name.as_ptr().cast::<c_char>()),
            cap: self.cap as usize,
            class_sizes: if self.no_classes_but_a_count { ptr::null() } else { classes.as_ptr() },
            class_count: classes.len(),
            shards: usize::from(self.shards % 8),
            region: if region.is_empty() { ptr::null_mut() } else { region.as_mut_ptr().cast() },
            region_bytes: region.len(),
            port: if has_port { &port } else { ptr::null() },
        };
        let given = if self.given { &raw const options } else { ptr::null() };
        let mut heap = ptr::dangling_mut();
        let out = if self.written { &raw mut heap } else { ptr::null_mut() };
        // SAFETY: everything that the options point to is there; a region stays until the heap is freed.
        let status = unsafe { c::flagstone_heap_owned(given, out) };
        if !self.written {
            assert_eq!(status, c::FLAGSTONE_INVALID);
            return None;
        }
        assert_eq!(heap.is_null(), status != c::FLAGSTONE_OK, "status {status}");
        let is_unsound = self.given
            && (name.is_some_and(|name| name.to_str().is_err())
                || (self.no_classes_but_a_count && !classes.is_empty())
                || (has_port && options.region_bytes > 0)
                || (has_port && (port.alloc.is_none() || port.free.is_none())));
        assert!(!is_unsound || status == c::FLAGSTONE_INVALID, "status {status}: {self:?}");
        let known = [c::FLAGSTONE_OK, c::FLAGSTONE_INVALID, c::FLAGSTONE_OUT_OF_MEMORY];
        assert!(known.contains(&status), "status {status}");
        (!heap.is_null()).then(|| Made::of(heap, region))
    }
}

fn json(room: usize, is_null: bool) {
    let room = room % 4096;
    let mut text = vec![0x55u8; room + 8];
    let out = if is_null { ptr::null_mut() } else { text.as_mut_ptr().cast::<c_char>() };
    // SAFETY: the place is null or holds `room` bytes.
    let len = unsafe { c::flagstone_stats_json(out, room) };
    if is_null && room > 0 {
        return assert_eq!(len, c::FLAGSTONE_INVALID as isize);
    }
    assert!(len > 0);
    if !is_null && room > 0 {
        let fits = (len as usize).min(room - 1);
        assert_eq!(text[fits], 0, "the text ends where it says");
        assert!(text[..fits].iter().all(|&byte| byte != 0));
    }
    let untouched = if is_null { &text[..] } else { &text[room..] };
    assert!(untouched.iter().all(|&byte| byte == 0x55), "written beyond the room");
}

fn json_owned(tells: bool) {
    let mut result = c::ResultPtr { ptr: ptr::null_mut(), destroy: None };
    let out = if tells { &raw mut result } else { ptr::null_mut() };
    // SAFETY: the place is valid or null.
    let status = unsafe { c::flagstone_stats_json_owned(out) };
    if !tells {
        return assert_eq!(status, c::FLAGSTONE_INVALID);
    }
    assert_eq!(status, c::FLAGSTONE_OK);
    let destroy = result.destroy.expect("a text comes with what ends it");
    // SAFETY: a string that ends in NUL, given up once; null is allowed.
    unsafe {
        assert!(!std::ffi::CStr::from_ptr(result.ptr.cast()).is_empty());
        destroy(result.ptr);
        destroy(ptr::null_mut());
    }
}

/// A heap's own port: what goes out comes back.
fn port(heap: *mut c::CHeap, size: usize, tells: bool) {
    let mut port = std::mem::MaybeUninit::<c::Port>::uninit();
    let out = if tells { port.as_mut_ptr() } else { ptr::null_mut() };
    // SAFETY: the heap is null or in use, the place valid or null.
    let status = unsafe { c::flagstone_port_view(heap, out) };
    if !tells {
        return assert_eq!(status, c::FLAGSTONE_INVALID);
    }
    // SAFETY: written, as the status says; each block is given up once.
    unsafe {
        assert_eq!(status, c::FLAGSTONE_OK);
        let port = port.assume_init();
        let (alloc, realloc, free) =
            (port.alloc.expect("alloc"), port.realloc.expect("realloc"), port.free.expect("free"));
        let outstanding = port.bytes_outstanding.expect("ours tells");
        let before = outstanding(port.context);
        let block = alloc(port.context, size, 8);
        if block.is_null() {
            return;
        }
        let grown = realloc(port.context, block, size, 2 * size + 1, 8);
        let (block, size) = if grown.is_null() { (block, size) } else { (grown, 2 * size + 1) };
        assert!(outstanding(port.context) > before);
        free(port.context, block, size, 8);
        assert_eq!(outstanding(port.context), before);
        let failures = port.failures.expect("ours tells");
        let _ = failures(port.context);
    }
}

/// A block of the malloc family, its size possibly absurd, and its end.
fn malloc(call: Family, size: usize, other: usize) {
    // Either what can be had, or what cannot.
    let fold = |size: usize| if size.is_multiple_of(4) { size | 1 << 63 } else { size % 100_000 };
    let (size, other) =
        (fold(size), if other.is_multiple_of(4) { other } else { 1 << (other % 10) });
    let mut align = 16;
    // SAFETY: no block is given; the place is valid.
    let block = unsafe {
        match call {
            Family::Malloc => c::malloc(size),
            Family::Calloc => c::calloc(size % 1000, other),
            Family::Reallocarray => c::reallocarray(ptr::null_mut(), size, other),
            Family::PosixMemalign => {
                let mut block = ptr::null_mut();
                let status = c::posix_memalign(&mut block, other, size);
                assert_eq!(status == 0, !block.is_null());
                assert!(other.is_power_of_two() || block.is_null());
                align = other;
                block
            }
            Family::AlignedAlloc => {
                align = other;
                c::aligned_alloc(other, size)
            }
            Family::Memalign => c::memalign(other, size),
            Family::Valloc => c::valloc(size),
            Family::Pvalloc => c::pvalloc(size),
        }
    };
    if block.is_null() {
        return;
    }
    // SAFETY: in use.
    let held = unsafe { c::malloc_usable_size(block) };
    let asked = match call {
        Family::Calloc => size % 1000 * other,
        Family::Reallocarray => size * other,
        _ => size,
    };
    assert!(held >= asked && block.addr().is_multiple_of(align.min(1 << 19)), "{call:?}");
    // SAFETY: the block holds `held` bytes and is given up once.
    unsafe {
        if asked > TOUCHED {
            return c::free(block);
        }
        let bytes = std::slice::from_raw_parts_mut(block.cast::<u8>(), asked);
        if let Family::Calloc = call {
            assert!(bytes.iter().all(|&byte| byte == 0), "calloc gives zeros");
        }
        bytes.fill(0xC3);
        let same = c::realloc(block, asked / 2 + 1);
        let kept = std::slice::from_raw_parts(same.cast::<u8>(), asked / 2);
        assert!(kept.iter().all(|&byte| byte == 0xC3));
        match size % 3 {
            0 => c::free(same),
            1 => c::free_sized(same, asked / 2 + 1),
            _ => assert!(c::realloc(same, 0).is_null()),
        }
    }
}

/// Null where null is allowed, and where it is not.
fn nulls() {
    let (nothing, invalid) = (ptr::null_mut(), c::FLAGSTONE_INVALID);
    // SAFETY: null is allowed by each of these.
    unsafe {
        c::free(nothing);
        assert_eq!(c::malloc_usable_size(nothing), 0);
        assert_eq!(c::flagstone_usable_size(nothing), 0);
        assert_eq!(c::flagstone_free(nothing, 0, 3), c::FLAGSTONE_OK);
        assert_eq!(c::flagstone_heap_free(ptr::null_mut()), c::FLAGSTONE_OK);
        assert_eq!(c::flagstone_heap_dealloc(ptr::null(), nothing, 1, 3), c::FLAGSTONE_OK);
        assert_eq!(c::flagstone_retire(ptr::null(), nothing), c::FLAGSTONE_OK);
        assert_eq!(c::flagstone_heap_owned(ptr::null(), ptr::null_mut()), invalid);
        assert_eq!(c::flagstone_metrics_serve(ptr::null()), invalid);
        assert_eq!(c::flagstone_metrics_serve(c"nowhere".as_ptr()), invalid);
        assert_eq!(c::flagstone_purge(ptr::null_mut()), c::FLAGSTONE_OK);
        assert_eq!(c::flagstone_verify(), 0, "this program's malloc is the system's");
    }
}
