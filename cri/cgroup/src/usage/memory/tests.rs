use super::*;

/// Of a container with a limit of 64 MiB and as much for both, kernel 6.18.
const V1: &[(&str, &str)] = &[
    (
        "memory.stat",
        "cache 1000\nrss 2000\npgfault 300\npgmajfault 4\ninactive_file 500\nhierarchical_memory_limit 67108864\n\
         total_cache 8110080\ntotal_rss 1327104\ntotal_rss_huge 0\ntotal_mapped_file 2433024\ntotal_swap 4096\n\
         total_swapcached 77\ntotal_pgfault 3201\ntotal_pgmajfault 33\ntotal_inactive_anon 135168\n\
         total_inactive_file 5406720\n",
    ),
    ("memory.limit_in_bytes", "67108864\n"),
    ("memory.memsw.limit_in_bytes", "100663296\n"),
    ("memory.kmem.usage_in_bytes", "409600\n"),
    ("memory.max_usage_in_bytes", "12001280\n"),
    ("memory.failcnt", "2\n"),
];

/// Kernel 6.1, pure v2.
const V2: &[(&str, &str)] = &[
    (
        "memory.stat",
        "anon 1327104\nfile 8110080\nkernel 409600\nkernel_stack 32768\npagetables 65536\npercpu 64\nsock 0\n\
         shmem 0\nfile_mapped 2433024\ninactive_anon 135168\ninactive_file 5406720\nslab_reclaimable 1\nslab 2000\n\
         pgfault 3201\npgmajfault 33\n",
    ),
    ("memory.max", "67108864\n"),
    ("memory.peak", "12001280\n"),
    ("memory.events", "low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\noom_group_kill 0\n"),
    ("memory.swap.current", "4096\n"),
    ("memory.swap.max", "33554432\n"),
];

fn files<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
    |name| files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned())
}

fn expected() -> Memory {
    Memory {
        usage: 9_846_784,
        working_set: 9_846_784 - 5_406_720,
        limit: Some(64 << 20),
        rss: Some(1_327_104),
        cache: Some(8_110_080),
        mapped_file: Some(2_433_024),
        kernel: Some(409_600),
        peak: Some(12_001_280),
        limit_hits: Some(2),
        swap: Some(4096),
        swap_limit: Some(32 << 20),
        faults: Some(Faults { all: 3201, major: 33 }),
        own_faults: None,
    }
}

#[test]
fn both_versions_say_the_same() {
    assert_eq!(v2("9846784\n", &files(V2)), Some(expected()));
    let own_faults = Some(Faults { all: 300, major: 4 });
    assert_eq!(v1("9846784\n", &files(V1)), Some(Memory { own_faults, ..expected() }));
}

#[test]
fn what_is_not_there_is_not_zero() {
    let unlimited = [("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.stat", "total_inactive_file 5\n")];
    let memory = v1("10\n", &files(&unlimited)).expect("usage");
    assert_eq!(memory, Memory { usage: 10, working_set: 5, ..Memory::default() });
    // Linux 5.15: no peak, no "kernel", no swap.
    let old = [("memory.max", "max\n"), ("memory.stat", "anon 1\nkernel_stack 1\npagetables 2\npercpu 3\nslab 4\n")];
    let memory = v2("10\n", &files(&old)).expect("usage");
    assert_eq!((memory.limit, memory.peak, memory.swap, memory.rss), (None, None, None, Some(1)));
    assert_eq!(memory.kernel, Some(10));
    assert_eq!(v2("", &files(V2)), None);
}
