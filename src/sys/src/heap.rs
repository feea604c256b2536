//! The memory of a program that runs for milliseconds.
//!
//! The C library's allocator spreads blocks of different sizes over pages of their own, and each page
//! that is touched first costs a page fault, in the parent and again in a child: of the faults of a
//! `run` with musl's more than a third were its. Here blocks lie one after the other, in pieces that the
//! kernel fills at once.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::null_mut;

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};

/// What is asked of the kernel at once.
const PIECE: usize = 64 * 1024;
/// Blocks are powers of two of bytes, from this one on.
const LEAST: usize = 16;
/// Larger ones, and such as want to be aligned otherwise, are mappings of their own.
const MOST: usize = PIECE / 4;
const CLASSES: usize = (MOST / LEAST).ilog2() as usize + 1;

/// An allocator for a program with one thread, as creel is: `#[global_allocator]` of its binary.
#[derive(Debug)]
pub struct Heap(UnsafeCell<State>);

// SAFETY: nothing starts a thread (docs/design/0004; clippy.toml bans std's spawns), and no signal handler
// allocates.
unsafe impl Sync for Heap {}

#[derive(Debug)]
struct State {
    /// What is left of the last piece.
    next: *mut u8,
    left: usize,
    /// Freed blocks by size, each with the address of the next one in its first word.
    free: [*mut u8; CLASSES],
}

impl Heap {
    /// An empty one.
    #[allow(clippy::new_without_default, reason = "statics want a const fn")]
    pub const fn new() -> Heap {
        Heap(UnsafeCell::new(State { next: null_mut(), left: 0, free: [null_mut(); CLASSES] }))
    }
}

/// Index of the size of a block, if it is none of its own mapping.
fn class(layout: Layout) -> Option<usize> {
    let size = layout.size().max(LEAST);
    (size <= MOST && layout.align() <= LEAST).then(|| (size.next_power_of_two() / LEAST).ilog2() as usize)
}

impl State {
    fn take(&mut self, class: usize) -> *mut u8 {
        let first = self.free[class];
        if !first.is_null() {
            // SAFETY: `give` wrote the next address into the block, which nobody has used since.
            self.free[class] = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        let size = LEAST << class;
        if self.left < size {
            // The rest of the old piece, less than the largest block, is lost.
            self.next = map(PIECE);
            if self.next.is_null() {
                self.left = 0;
                return null_mut();
            }
            self.left = PIECE;
        }
        let block = self.next;
        self.left -= size;
        // SAFETY: the piece has `size` more bytes from here.
        self.next = unsafe { block.add(size) };
        block
    }

    fn give(&mut self, block: *mut u8, class: usize) {
        // SAFETY: the block is a word long at least and aligned for one, and its owner is done with it.
        unsafe { block.cast::<*mut u8>().write(self.free[class]) };
        self.free[class] = block;
    }
}

/// A mapping whose pages are there already; null when there is no memory.
fn map(size: usize) -> *mut u8 {
    let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    // SAFETY: a new mapping at a place that the kernel chooses.
    unsafe { mmap_anonymous(null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, flags) }
        .map_or(null_mut(), |address| address.cast())
}

// SAFETY: blocks do not overlap and are as long as asked for: a class is a power of two that holds the size,
// and pieces are aligned to pages and cut into multiples of LEAST, which is the largest alignment of a
// class. Mappings are aligned to pages; what wants more than that gets none.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            // SAFETY: one thread, and no call of this allocator is inside another.
            Some(class) => unsafe { &mut *self.0.get() }.take(class),
            None if layout.align() > rustix::param::page_size() => null_mut(),
            None => map(layout.size()),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            // SAFETY: as in `alloc`.
            Some(class) => unsafe { &mut *self.0.get() }.give(block, class),
            // SAFETY: the mapping that `alloc` made; by the caller nothing refers to it.
            None => crate::best_effort(unsafe { munmap(block.cast(), layout.size()) }),
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller, `size` is valid with this alignment.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(new)) {
            (Some(old), Some(new)) if old == new => block,
            // SAFETY: the mapping that `alloc` made, of that size.
            (None, None) => unsafe { mremap(block.cast(), layout.size(), size, MremapFlags::MAYMOVE) }
                .map_or(null_mut(), |address| address.cast()),
            _ => {
                // SAFETY: both blocks are live, do not overlap, and hold what is copied.
                unsafe {
                    let moved = self.alloc(new);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap_or(Layout::new::<u8>())
    }

    #[test]
    fn blocks_do_not_overlap_and_keep_their_content() {
        let heap = Heap::new();
        let mut blocks: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut seed = 1u32;
        for round in 0..20_000u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = (seed >> 8) as usize;
            let tag = round as u8;
            // SAFETY: each block is used within its layout, and freed once.
            unsafe {
                if random.is_multiple_of(3) && !blocks.is_empty() {
                    let (block, layout, tag) = blocks.swap_remove(random % blocks.len());
                    assert!((0..layout.size()).all(|i| block.add(i).read() == tag));
                    heap.dealloc(block, layout);
                } else if random.is_multiple_of(7) && !blocks.is_empty() {
                    let at = random % blocks.len();
                    let (block, old, tag) = blocks[at];
                    let new = layout(1 + random % 40_000, old.align());
                    let moved = heap.realloc(block, old, new.size());
                    assert!((0..old.size().min(new.size())).all(|i| moved.add(i).read() == tag));
                    moved.write_bytes(tag, new.size());
                    blocks[at] = (moved, new, tag);
                } else {
                    let align = 1 << (random % 13);
                    let size = 1 + random % if random.is_multiple_of(50) { 100_000 } else { 500 };
                    let block = heap.alloc(layout(size, align));
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    block.write_bytes(tag, size);
                    blocks.push((block, layout(size, align), tag));
                }
            }
        }
        for (block, layout, tag) in blocks {
            // SAFETY: as above.
            unsafe {
                assert!((0..layout.size()).all(|i| block.add(i).read() == tag));
                heap.dealloc(block, layout);
            }
        }
    }

    #[test]
    fn a_freed_block_is_the_next_of_its_size() {
        let heap = Heap::new();
        let layout = layout(100, 8);
        // SAFETY: nothing is read or written.
        unsafe {
            let first = heap.alloc(layout);
            heap.dealloc(first, layout);
            assert_eq!(heap.alloc(layout), first);
            assert_eq!(heap.realloc(first, layout, 128), first);
            assert_ne!(heap.realloc(first, layout, 129), first);
        }
    }

    #[test]
    fn what_cannot_be_had_is_null() {
        let heap = Heap::new();
        // SAFETY: nothing is read or written.
        unsafe {
            assert!(heap.alloc(layout(64, 1 << 20)).is_null());
            assert!(heap.alloc(layout(1 << 60, 8)).is_null());
        }
    }
}
