//! The heap's snapshot as JSON.
//!
//! Field names are those of [`flagstone_slab::stats`], so the text needs no page of its own: an object
//! for each struct, an array for each list, a string for each state.

use std::ffi::c_char;

use flagstone_slab::Heap;
use flagstone_slab::stats::{
    ByteTotals, ClassSnapshot, FallbackSnapshot, HeapSnapshot, LockSite, LockSnapshot,
    RemoteSnapshot, SegmentSnapshot, ShardSnapshot, TierSnapshot,
};
use serde_json::{Value, json};

use crate::{FLAGSTONE_FAILED, FLAGSTONE_INVALID, guarded};

/// Writes the heap's statistics as JSON, like `snprintf`; returns the length of the whole text.
///
/// # Safety
/// `buf` is null, or valid for writing `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flagstone_stats_json(buf: *mut c_char, len: usize) -> isize {
    if buf.is_null() && len > 0 {
        return FLAGSTONE_INVALID as isize;
    }
    let text = guarded(None, || Some(heap(&Heap::global().snapshot()).to_string()));
    if len > 0 {
        let text = text.as_deref().unwrap_or_default();
        let fits = text.len().min(len - 1);
        // SAFETY: the caller's promise; `fits + 1` is at most `len`.
        unsafe {
            buf.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), fits);
            buf.add(fits).write(0);
        }
    }
    text.map_or(FLAGSTONE_FAILED as isize, |text| text.len() as isize)
}

fn heap(snapshot: &HeapSnapshot) -> Value {
    json!({
        "heap": snapshot.heap,
        "bytes": bytes(&snapshot.bytes),
        "classes": snapshot.classes.iter().map(class).collect::<Vec<_>>(),
        "shards": snapshot.shards.iter().map(shard).collect::<Vec<_>>(),
        "locks": snapshot.locks.iter().map(lock).collect::<Vec<_>>(),
        "fallback": fallback(&snapshot.fallback),
        "remote": remote(&snapshot.remote),
        "segments": segments(&snapshot.segments),
        "tiers": tiers(&snapshot.tiers),
    })
}

fn bytes(bytes: &ByteTotals) -> Value {
    json!({
        "live": bytes.live,
        "cached": bytes.cached,
        "fragmentation": bytes.fragmentation,
        "retired": bytes.retired,
        "metadata": bytes.metadata,
        "mapped": bytes.mapped,
        "retained": bytes.retained,
        "active": bytes.active,
        "resident": bytes.resident,
        "residual": bytes.residual(),
    })
}

fn class(class: &ClassSnapshot) -> Value {
    json!({
        "block_bytes": class.block_bytes,
        "allocs": class.allocs,
        "frees": class.frees,
        "in_use": class.in_use,
        "high_water": class.high_water,
        "window_high_water": class.window_high_water,
        "slabs": class.slabs,
        "free_blocks": class.free_blocks,
        "slab_bytes": class.slab_bytes,
        "refills": class.refills,
        "remote_frees": class.remote_frees,
        "bucket_allocs": class.bucket_allocs,
        "bucket_frees": class.bucket_frees,
    })
}

fn shard(shard: &ShardSnapshot) -> Value {
    json!({
        "state": shard.state.as_str(),
        "leases": shard.leases,
        "parks": shard.parks,
        "claims": shard.claims,
        "allocs": shard.allocs,
        "frees": shard.frees,
        "misses": shard.misses,
        "slabs": shard.slabs,
        "live_bytes": shard.live_bytes,
        "remote_posted_blocks": shard.remote_posted_blocks,
        "remote_posted_batches": shard.remote_posted_batches,
        "remote_drained_blocks": shard.remote_drained_blocks,
        "remote_drained_batches": shard.remote_drained_batches,
        "forwarded_batches": shard.forwarded_batches,
        "outbox_bytes": shard.outbox_bytes,
    })
}

fn lock(lock: &LockSnapshot) -> Value {
    let class = match lock.site {
        LockSite::Bucket(class) => Some(class),
        _ => None,
    };
    json!({
        "site": lock.site.as_str(),
        "class": class,
        "acquisitions": lock.acquisitions,
        "contended": lock.contended,
        "wait_nanos": lock.wait_nanos,
        "max_wait_nanos": lock.max_wait_nanos,
        "hold_nanos": lock.hold_nanos,
    })
}

fn fallback(fallback: &FallbackSnapshot) -> Value {
    let histogram = fallback.histogram.iter().enumerate();
    let histogram = histogram
        .map(|(i, count)| json!({ "bound_bytes": FallbackSnapshot::bound(i), "count": count }));
    json!({
        "allocs": fallback.allocs,
        "frees": fallback.frees,
        "resizes": fallback.resizes,
        "remaps": fallback.remaps,
        "failures": fallback.failures,
        "live_bytes": fallback.live_bytes,
        "mapped_bytes": fallback.mapped_bytes,
        "histogram": histogram.collect::<Vec<_>>(),
    })
}

fn remote(remote: &RemoteSnapshot) -> Value {
    json!({
        "posted_blocks": remote.posted_blocks,
        "posted_batches": remote.posted_batches,
        "drained_blocks": remote.drained_blocks,
        "drained_batches": remote.drained_batches,
        "forwarded_batches": remote.forwarded_batches,
        "outbox_bytes": remote.outbox_bytes,
    })
}

fn segments(segments: &SegmentSnapshot) -> Value {
    json!({
        "segments": segments.segments,
        "segment_bytes": segments.segment_bytes,
        "mapped_total": segments.mapped_total,
        "unmapped_total": segments.unmapped_total,
        "free_dirty_bytes": segments.free_dirty_bytes,
        "free_clean_bytes": segments.free_clean_bytes,
        "purged_bytes_total": segments.purged_bytes_total,
        "purges_total": segments.purges_total,
        "slabs_returned_total": segments.slabs_returned_total,
    })
}

fn tiers(tiers: &TierSnapshot) -> Value {
    json!({
        "shard_hits": tiers.shard_hits,
        "shard_misses": tiers.shard_misses,
        "bucket_hits": tiers.bucket_hits,
        "bucket_misses": tiers.bucket_misses,
        "fallback_hits": tiers.fallback_hits,
        "lease_refusals": tiers.lease_refusals,
        "failures": tiers.failures,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::ptr;

    use flagstone_slab::stats::ShardState;

    use super::*;

    /// A snapshot in which every list has an entry and some figures differ.
    fn sample() -> HeapSnapshot {
        let mut snapshot = HeapSnapshot::default();
        snapshot.heap = "a \"quoted\"\nname".into();
        snapshot.bytes.mapped = u64::MAX;
        snapshot.bytes.resident = Some(7);
        let mut class = ClassSnapshot::default();
        class.block_bytes = 48;
        class.allocs = 3;
        snapshot.classes.push(class);
        let mut shard = ShardSnapshot::default();
        shard.state = ShardState::Parked;
        snapshot.shards.push(shard);
        snapshot.locks.push(LockSnapshot::new(LockSite::Bucket(5)));
        snapshot.locks.push(LockSnapshot::new(LockSite::Segments));
        snapshot
    }

    #[test]
    fn the_text_says_what_the_snapshot_says() {
        let text = heap(&sample()).to_string();
        let read: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["heap"], "a \"quoted\"\nname");
        assert_eq!(read["bytes"]["mapped"], u64::MAX);
        assert_eq!(read["bytes"]["resident"], 7);
        assert_eq!(read["classes"][0]["block_bytes"], 48);
        assert_eq!(read["classes"][0]["allocs"], 3);
        assert_eq!(read["shards"][0]["state"], "parked");
        assert_eq!(read["locks"][0]["class"], 5);
        assert!(read["locks"][1]["class"].is_null());
        assert_eq!(read["fallback"]["histogram"][0]["bound_bytes"], 64);
    }

    /// A field that the snapshot gains and this text lacks shows in the snapshot's own debug text.
    #[test]
    fn no_field_of_the_snapshot_is_left_out() {
        let json = heap(&sample()).to_string();
        let debug = format!("{:?}", sample());
        let mut fields = 0;
        for (at, _) in debug.match_indices(": ") {
            let name = debug[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            let name = name.expect("a split has a first part");
            assert!(json.contains(&format!("\"{name}\":")), "{name} is not in the JSON text");
            fields += 1;
        }
        assert!(fields > 60, "only {fields} fields found: the test reads the wrong text");
    }

    #[test]
    fn writes_like_snprintf() {
        // SAFETY: each buffer is as long as said, or null.
        unsafe {
            let whole = flagstone_stats_json(ptr::null_mut(), 0);
            assert!(whole > 0);
            let mut small = [0x55 as c_char; 9];
            assert!(flagstone_stats_json(small.as_mut_ptr(), 8) > 8);
            assert_eq!(CStr::from_ptr(small.as_ptr()).count_bytes(), 7);
            assert_eq!(small[8], 0x55, "written past the length");
            assert_eq!(flagstone_stats_json(ptr::null_mut(), 5), FLAGSTONE_INVALID as isize);

            let mut room = vec![0x55 as c_char; whole as usize + 4096];
            let written = flagstone_stats_json(room.as_mut_ptr(), room.len());
            let text = CStr::from_ptr(room.as_ptr());
            assert_eq!(text.count_bytes() as isize, written);
            let text = text.to_str().expect("UTF-8");
            let read: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(read["heap"], "global");
        }
    }
}
