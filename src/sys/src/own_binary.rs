//! The running program's own file, as /proc/PID/exe shows it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};

use crate::{Errno, Result, check};

/// Makes `file`, another opening of the file that the process runs from, the one that it runs from:
/// its mappings are exchanged for mappings of `file`, and /proc/self/exe leads to it and to its mount.
/// As execve(2) of `file` would, without starting anew.
///
/// The process must have one thread. Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN and a kernel with
/// CONFIG_CHECKPOINT_RESTORE: PR_SET_MM_MAP, prctl(2). On error the process runs on as it was.
pub fn replace(file: BorrowedFd<'_>) -> Result<()> {
    let mut layout = Layout::read()?;
    let image = Image::own();
    for segment in &image.segments {
        segment.remap(file)?;
    }
    if let Some((start, length)) = image.relro {
        // SAFETY: the loader's own call once more, on the same pages.
        unsafe { rustix::mm::mprotect(start as *mut _, length, MprotectFlags::READ) }?;
    }
    layout.exe_fd = file.as_raw_fd() as u32;
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    // SAFETY: the kernel reads `layout`, which lives through the call and has what the kernel itself
    // said a moment ago, so that nothing changes but the file.
    check(unsafe {
        libc::c_long::from(libc::prctl(
            libc::PR_SET_MM,
            PR_SET_MM_MAP,
            &raw const layout,
            size_of::<Layout>(),
            0 as libc::c_ulong,
        ))
    })
    .map(drop)
}

/// One PT_LOAD of the program, in whole pages.
struct Segment {
    start: usize,
    length: usize,
    offset: u64,
    protection: ProtFlags,
}

impl Segment {
    /// Pages that nobody writes to have the same content in the new mapping. Written ones are copied
    /// to memory without a file.
    fn remap(&self, file: BorrowedFd<'_>) -> Result<()> {
        let at = self.start as *mut libc::c_void;
        if !self.protection.contains(ProtFlags::WRITE) {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED;
            // SAFETY: the range is a mapping of the same pages of the same file, which cannot be
            // written to while it is executed (ETXTBSY): what runs or is borrowed there does not change.
            unsafe { rustix::mm::mmap(at, self.length, self.protection, flags, file, self.offset) }?;
            return Ok(());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // Each page will be written: one call instead of a page fault each.
        let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let copy = unsafe { rustix::mm::mmap_anonymous(null_mut(), self.length, protection, flags) }?;
        // SAFETY: source and destination are mapped, as long, and different. Nothing writes to the source
        // between copy and exchange: there is one thread, and rustix's calls touch no static data.
        // The destination of the exchange is exactly the mapping that was copied.
        unsafe {
            std::ptr::copy_nonoverlapping(at.cast::<u8>(), copy.cast::<u8>(), self.length);
            rustix::mm::mremap_fixed(copy, self.length, self.length, MremapFlags::MAYMOVE, at)
        }?;
        Ok(())
    }
}

/// Where the program lies in memory.
#[derive(Default)]
struct Image {
    segments: Vec<Segment>,
    /// Start and length of what the loader made read-only after relocation.
    relro: Option<(usize, usize)>,
}

impl Image {
    fn own() -> Image {
        let mut image = Image::default();
        // SAFETY: `visit` takes `data` for the Image that it is, and is done when the call returns.
        unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut image).cast()) };
        image
    }
}

/// The first object that dl_iterate_phdr(3) shows is the program.
unsafe extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    data: *mut libc::c_void,
) -> libc::c_int {
    let page = rustix::param::page_size();
    let up = |address: usize| address.next_multiple_of(page);
    // SAFETY: by dl_iterate_phdr(3) `info` is valid during the call, as is its array of headers; `data`
    // is what `own` passed.
    let (info, image) = unsafe { (&*info, &mut *data.cast::<Image>()) };
    // SAFETY: as above.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    for header in headers {
        let start = (info.dlpi_addr + header.p_vaddr) as usize;
        let first = start - start % page;
        match header.p_type {
            libc::PT_LOAD => {
                let mut protection = ProtFlags::empty();
                for (flag, bit) in [
                    (libc::PF_R, ProtFlags::READ),
                    (libc::PF_W, ProtFlags::WRITE),
                    (libc::PF_X, ProtFlags::EXEC),
                ] {
                    protection.set(bit, header.p_flags & flag != 0);
                }
                let length = up(start + header.p_filesz as usize) - first;
                let offset = header.p_offset - header.p_offset % page as u64;
                image.segments.push(Segment { start: first, length, offset, protection });
            }
            // As glibc does, whose _dl_protect_relro rounds both ends down; musl leaves it to us.
            libc::PT_GNU_RELRO => {
                let end = start + header.p_memsz as usize;
                let end = end - end % page;
                image.relro = (end > first).then(|| (first, end - first));
            }
            _ => {}
        }
    }
    1
}

/// struct prctl_mm_map of linux/prctl.h.
#[repr(C)]
struct Layout {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: *mut u64,
    auxv_size: u32,
    exe_fd: u32,
}

impl Layout {
    /// As the kernel shows it: proc_pid_stat(5), whose fields count from 1 and have no blank in them
    /// but for the second, which ends at the last parenthesis.
    fn read() -> Result<Layout> {
        let mut text = [0u8; 1024];
        let io = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        let length = File::open("/proc/self/stat").and_then(|mut file| file.read(&mut text)).map_err(io)?;
        let text = std::str::from_utf8(text.get(..length).unwrap_or_default()).map_err(|_| Errno::INVAL)?;
        let (_, rest) = text.rsplit_once(") ").ok_or(Errno::INVAL)?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| -> Result<u64> {
            fields.get(number - 3).and_then(|word| word.parse().ok()).ok_or(Errno::INVAL)
        };
        // SAFETY: a break of 0 changes nothing and returns the present one (brk(2)).
        let brk = unsafe { libc::syscall(libc::SYS_brk, 0) } as u64;
        Ok(Layout {
            start_code: field(26)?,
            end_code: field(27)?,
            start_stack: field(28)?,
            start_data: field(45)?,
            end_data: field(46)?,
            start_brk: field(47)?,
            brk,
            arg_start: field(48)?,
            arg_end: field(49)?,
            env_start: field(50)?,
            env_end: field(51)?,
            auxv: null_mut(),
            auxv_size: 0,
            exe_fd: u32::MAX,
        })
    }
}
