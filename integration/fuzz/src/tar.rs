//! The tar reader on bytes that are a tar's at least in their checksums.

use creel_image_lib::tar::{Kind, Reader};

const BLOCK: usize = 512;

pub fn run(data: &[u8]) {
    read(data);
    let mut sealed = data.to_vec();
    for block in sealed.chunks_exact_mut(BLOCK) {
        seal(block);
    }
    read(&sealed);
}

/// Makes a block's checksum right, if it may be a header.
fn seal(block: &mut [u8]) {
    if block[0] == 0 || block[156] == 0xff {
        return;
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn read(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut taken = 0;
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!(entry.path.len() < 4096 && entry.link.len() < 4096);
        assert!(!entry.path.contains(&0) && !entry.link.contains(&0));
        assert_eq!(entry.mode & !0o7777, 0);
        assert!(entry.uid != u32::MAX && entry.gid != u32::MAX);
        assert!(entry.mtime.1 < 1_000_000_000);
        let stored: u64 = match &entry.segments {
            Some(segments) => {
                let mut end = 0;
                for segment in segments {
                    assert!(segment.offset >= end && segment.offset + segment.length <= entry.size);
                    end = segment.offset + segment.length;
                }
                segments.iter().map(|segment| segment.length).sum()
            }
            None => entry.size,
        };
        let mut body = 0;
        let whole = loop {
            match reader.chunk() {
                Ok([]) => break true,
                Ok(chunk) => {
                    let count = chunk.len();
                    body += count as u64;
                    reader.consume(count);
                }
                Err(_) => break false,
            }
        };
        taken += body;
        assert!(taken <= bytes.len() as u64);
        assert!(!whole || entry.kind != Kind::File || body == stored, "{entry:?} had {body} bytes");
    }
}
