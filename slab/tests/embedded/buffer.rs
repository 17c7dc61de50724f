//! Buffers for heaps: any size and start, with guard bytes on both sides that nobody may write.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Mutex;

use flagstone_slab::embedded::{EmbeddedHeap, GiveError};
use flagstone_slab::port::FixedRegion;

const GUARD: usize = 64;
const UNTOUCHED: u8 = 0xc3;
/// What a buffer is aligned to before its offset is added.
const ALIGN: usize = 8192;

/// A buffer that starts `offset` bytes after a multiple of [`ALIGN`].
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    pub bytes: usize,
}

impl Buffer {
    pub fn new(bytes: usize, offset: usize) -> Self {
        let memory = vec![UNTOUCHED; bytes + offset + 2 * GUARD + ALIGN].into_boxed_slice();
        let first = memory.as_ptr().addr() + GUARD;
        let start = first.next_multiple_of(ALIGN) + offset - memory.as_ptr().addr();
        Self { memory, start, bytes }
    }

    /// A heap over the buffer, which must outlive it.
    pub fn heap(&mut self) -> Result<EmbeddedHeap, GiveError> {
        let start = NonNull::from(&mut self.memory[self.start]);
        // Through the whole allocation's provenance.
        let start = NonNull::new(self.memory.as_mut_ptr()).unwrap().with_addr(start.addr());
        // SAFETY: the tests drop the heap and its blocks before the buffer.
        let region = unsafe { FixedRegion::from_raw_parts(start, self.bytes, false) };
        let heap = EmbeddedHeap::new();
        heap.give(region)?;
        Ok(heap)
    }

    /// Its addresses.
    pub fn span(&self) -> Range<usize> {
        let start = self.memory.as_ptr().addr() + self.start;
        start..start + self.bytes
    }

    pub fn holds(&self, block: NonNull<u8>, bytes: usize) -> bool {
        let (span, block) = (self.span(), block.addr().get());
        span.start <= block && block + bytes <= span.end
    }

    /// Nobody wrote outside.
    pub fn check_guards(&self) {
        let end = self.start + self.bytes;
        assert!(self.memory[..self.start].iter().all(|&byte| byte == UNTOUCHED), "written before");
        assert!(self.memory[end..].iter().all(|&byte| byte == UNTOUCHED), "written behind");
    }
}

/// Sizes from 64 KiB to 1 MiB and odd ones, with starts that are aligned and that are not.
pub fn shapes() -> impl Iterator<Item = (usize, usize)> {
    let sizes = [64 << 10, (64 << 10) + 1, 100_003, 128 << 10, 256 << 10, 700_001, 1 << 20];
    sizes.into_iter().flat_map(|bytes| [0, 1, 513, 4095].map(|offset| (bytes, offset)))
}

pub fn layout(bytes: usize, align: usize) -> Layout {
    Layout::from_size_align(bytes, align).expect("valid")
}

/// A heap that stays, for what needs it for ever.
pub fn leaked(bytes: usize) -> &'static EmbeddedHeap {
    // Named here, so that a leak checker sees that they are meant to stay.
    static STAY: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let buffer: &'static mut [MaybeUninit<u8>] = Box::leak(Box::new_uninit_slice(bytes));
    let start = buffer.as_ptr().expose_provenance();
    let heap: &'static EmbeddedHeap = Box::leak(Box::new(EmbeddedHeap::new()));
    heap.give(FixedRegion::new(buffer)).expect("large enough");
    let heap_at = (&raw const *heap).expose_provenance();
    STAY.lock().expect("not poisoned").extend([start, heap_at]);
    heap
}
