//! The cache against damage, killed writers, and many processes at once.

use std::sync::atomic::AtomicUsize;

use super::*;

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("bullet-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn cache(&self) -> Cache {
        Cache::new(&self.0, 1 << 20)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key(n: usize) -> Key {
    Key::new(&[&n.to_le_bytes()])
}

/// What `key(n)` stands for.
fn image(n: usize) -> Vec<u8> {
    (0..1000 + n % 97).map(|i| (i * 31 + n) as u8).collect()
}

/// Looks `n` up; whether it had to be compiled.
fn compiled(cache: &Cache, n: usize) -> bool {
    let mut compiled = false;
    let found = cache.get_or(&key(n), || {
        compiled = true;
        Ok(image(n))
    });
    assert_eq!(found.unwrap(), image(n));
    compiled
}

#[test]
fn a_second_lookup_hits_even_in_another_process() {
    let folder = Folder::new("hit");
    let cache = folder.cache();
    assert!(compiled(&cache, 1) && !compiled(&cache, 1) && compiled(&cache, 2));
    let later = folder.cache();
    assert!(!compiled(&later, 1) && !compiled(&later, 2));
    let report = later.report();
    assert_eq!((report.entries, report.process.hits, report.process.misses), (2, 2, 0));
    assert_eq!((report.ever.hits, report.ever.misses), (3, 2));
    assert_eq!(report.bytes as usize, image(1).len() + image(2).len() + 2 * HEADER);
    assert_eq!(report.folder, folder.0);
}

#[test]
fn keys_tell_their_parts_apart() {
    assert_eq!(Key::new(&[b"ab", b"c"]), Key::new(&[b"ab", b"c"]));
    for other in [&[b"a".as_slice(), b"bc"][..], &[b"abc"], &[b"c", b"ab"], &[b"ab", b"c", b""]] {
        assert_ne!(Key::new(&[b"ab", b"c"]), Key::new(other));
    }
}

#[test]
fn damaged_entries_are_compiled_again_and_replaced() {
    let folder = Folder::new("damage");
    let cache = folder.cache();
    compiled(&cache, 3);
    let path = cache.path(&key(3));
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let longer = [&whole[..], b"x"].concat();
    let damaged =
        [flipped(0), flipped(9), flipped(20), flipped(HEADER + 5), flipped(whole.len() - 1), longer];
    let truncated = [0, 1, HEADER - 1, HEADER, whole.len() / 2, whole.len() - 1];
    for bytes in damaged.into_iter().chain(truncated.map(|len| whole[..len].to_vec())) {
        fs::write(&path, bytes).unwrap();
        assert!(compiled(&cache, 3) && !compiled(&cache, 3));
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    // A whole entry, but another's.
    compiled(&cache, 4);
    fs::copy(cache.path(&key(4)), &path).unwrap();
    assert!(compiled(&cache, 3));
}

#[test]
fn what_does_not_compile_is_not_kept() {
    let folder = Folder::new("fails");
    let cache = folder.cache();
    assert!(cache.get_or(&key(1), || Err(Error::unsupported("no"))).is_err());
    assert_eq!(cache.report().entries, 0);
    assert!(compiled(&cache, 1));
}

#[test]
fn a_folder_that_cannot_be_used_costs_nothing_but_the_caching() {
    let folder = Folder::new("unusable");
    fs::create_dir_all(&folder.0).unwrap();
    let file = folder.0.join("file");
    fs::write(&file, "not a folder").unwrap();
    let cache = Cache::new(file.join("below"), 1 << 20);
    assert!(compiled(&cache, 1) && compiled(&cache, 1));
    assert!(cache.warned.load(Relaxed));
    assert_eq!((cache.report().process.misses, cache.report().ever.misses), (2, 2));
    // A folder in the place of an entry.
    let cache = folder.cache();
    fs::create_dir_all(cache.path(&key(2)).join("below")).unwrap();
    assert!(compiled(&cache, 2) && compiled(&cache, 2) && compiled(&cache, 1) && !compiled(&cache, 1));
    assert!(files(&cache.kernels(), "tmp").is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_costs_nothing_but_the_caching() {
    let folder = Folder::new("full");
    let cache = folder.cache();
    fs::create_dir_all(&folder.0).unwrap();
    // Every write to this device says that there is no space; the file of counts cannot grow either.
    std::os::unix::fs::symlink("/dev/full", folder.0.join("stats")).unwrap();
    assert!(compiled(&cache, 1) && !compiled(&cache, 1));
    assert_eq!(cache.report().ever.hits, 1);
}

#[test]
fn the_least_recently_used_go_first() {
    let folder = Folder::new("limit");
    let cache = Cache::new(&folder.0, 10_000);
    let old = |n: usize, hours: u64| {
        let file = File::options().write(true).open(cache.path(&key(n))).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    for n in 0..8 {
        compiled(&cache, n);
        old(n, 100 - n as u64);
    }
    assert!(!compiled(&cache, 0), "used just now");
    for n in 8..12 {
        compiled(&cache, n);
        assert!(cache.report().bytes <= 10_000);
    }
    assert!(!compiled(&cache, 0) && !compiled(&cache, 11));
    assert!(cache.load(&key(1)).is_none() && cache.load(&key(2)).is_none());
    // One that is larger than everything allowed is not kept, and pushes nothing out.
    let before = cache.report().entries;
    cache.store(&key(99), &[1; 20_000]).unwrap();
    assert_eq!(cache.report().entries, before);
}

#[test]
fn what_killed_writers_left_is_swept_up_when_it_is_old() {
    let folder = Folder::new("sweep");
    let cache = folder.cache();
    fs::create_dir_all(cache.kernels()).unwrap();
    let [old, new] = ["1-2-3.tmp", "4-5-6.tmp"].map(|name| cache.kernels().join(name));
    fs::write(&new, "x").unwrap();
    File::create(&old).unwrap().set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
    compiled(&cache, 1);
    assert!(!old.exists() && new.exists());
}

#[test]
fn threads_share_a_folder() {
    let folder = Folder::new("threads");
    let caches: Vec<Cache> = (0..4).map(|_| folder.cache()).collect();
    let lookups = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for cache in &caches {
            scope.spawn(|| {
                for n in 0..100 {
                    compiled(cache, n % 10);
                    lookups.fetch_add(1, Relaxed);
                }
            });
        }
    });
    let report = caches[0].report();
    assert_eq!(report.entries, 10);
    assert!(files(&caches[0].kernels(), "tmp").is_empty());
    let pending: u64 = caches.iter().map(|c| c.report().ever.hits - c.stats.written().hits).sum();
    let (written, all) = (caches[0].stats.written(), lookups.load(Relaxed) as u64);
    assert!(written.hits + written.misses + pending <= all && written.hits > 0);
    assert_eq!(caches.iter().map(|c| c.report().process).map(|p| p.hits + p.misses).sum::<u64>(), all);
}

#[test]
fn damaged_counts_start_anew() {
    let folder = Folder::new("counts");
    let cache = folder.cache();
    compiled(&cache, 1);
    for damage in ["", "hits", "hits x misses 2 compile_us 3\n", "\u{0}\u{0}\u{0}", &"long ".repeat(100)] {
        fs::write(folder.0.join("stats"), damage).unwrap();
        compiled(&cache, 1);
        assert_eq!(cache.report().ever.hits, 1);
    }
}

#[test]
fn settings_come_from_the_environment() {
    let from = |vars: &'static [(&str, &str)]| {
        Cache::from_vars(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    };
    let folder = |vars| from(vars).unwrap().map(|cache| (cache.folder, cache.limit));
    let at = |path: &str| Some((PathBuf::from(path), DEFAULT_LIMIT));
    assert_eq!(folder(&[("HOME", "/h")]), at("/h/.cache/bullet"));
    assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), at("/x/bullet"));
    assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "")]), at("/h/.cache/bullet"));
    assert_eq!(folder(&[("XDG_CACHE_HOME", "/x"), ("BULLET_CACHE_DIR", "/b")]), at("/b"));
    assert_eq!(folder(&[("HOME", "/h"), ("BULLET_CACHE", "0")]), None);
    assert_eq!(folder(&[]), None);
    assert_eq!(
        folder(&[("HOME", "/h"), ("BULLET_CACHE_LIMIT", "1MiB")]),
        Some(("/h/.cache/bullet".into(), 1 << 20))
    );
    let wrong: [&'static [(&str, &str)]; 2] = [&[("BULLET_CACHE", "yes")], &[("BULLET_CACHE_LIMIT", "much")]];
    for vars in wrong {
        let e = from(vars).unwrap_err();
        assert!(e.message.contains(vars[0].0) && e.message.contains(vars[0].1), "{e}");
    }
}

/// Stores entries until it is killed, if the test below started it.
#[test]
fn child_that_writes() {
    if let Some(folder) = std::env::var_os("BULLET_TEST_CACHE_CHILD") {
        let cache = Cache::new(folder, 64 << 20);
        // Large enough that most kills come in the middle of one.
        for n in 0.. {
            cache.store(&key(n % 4), &image(n % 4).repeat(2000)).unwrap();
        }
    }
}

#[test]
fn a_killed_writer_damages_nothing() {
    let folder = Folder::new("kill");
    let cache = Cache::new(&folder.0, 64 << 20);
    for round in 0..8 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "jit::cache::tests::child_that_writes", "--nocapture"])
            .env("BULLET_TEST_CACHE_CHILD", &folder.0)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while cache.load(&key(0)).is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "the child stores nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 1733));
        child.kill().unwrap();
        child.wait().unwrap();
        for n in 0..4 {
            // All or nothing.
            if let Some(found) = cache.load(&key(n)) {
                assert!(found == image(n).repeat(2000));
            }
            assert!(!cache.path(&key(n)).exists() || cache.load(&key(n)).is_some());
            let _ = fs::remove_file(cache.path(&key(n)));
        }
    }
}

#[test]
fn the_first_decision_counts() {
    let folder = Folder::new("decisions");
    let caches = [folder.cache(), folder.cache()];
    assert!(caches[0].decision("a product").is_none() && caches[0].decisions().is_empty());
    assert_eq!(caches[0].decide("a product", "own").unwrap(), "own");
    assert_eq!(caches[1].decide("a product", "library").unwrap(), "own");
    assert_eq!(caches[1].decision("a product").as_deref(), Some("own"));
    assert_eq!(caches[1].decide("another", "library").unwrap(), "library");
    let all = [("a product", "own"), ("another", "library")].map(|(a, d)| (a.to_string(), d.to_string()));
    assert_eq!(caches[0].decisions(), all);
    assert!(files(&folder.0.join("decisions"), "tmp").is_empty());
    assert_eq!(caches[0].report().entries, 0, "decisions are no kernels");
}

#[test]
fn a_damaged_decision_is_made_again() {
    let folder = Folder::new("damaged-decision");
    let cache = folder.cache();
    cache.decide("a product", "own").unwrap();
    let file = files(&folder.0.join("decisions"), "txt").remove(0).path;
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [&b""[..], &whole[..HEADER - 1], &whole[..whole.len() - 1], &flipped] {
        fs::write(&file, bad).unwrap();
        assert!(cache.decision("a product").is_none() && cache.decisions().is_empty());
        assert_eq!(cache.decide("a product", "library").unwrap(), "library");
        assert_eq!(cache.decision("a product").as_deref(), Some("library"));
    }
    // Under another's name it does not count.
    cache.decide("another", "own").unwrap();
    let other =
        files(&folder.0.join("decisions"), "txt").into_iter().find(|entry| entry.path != file).unwrap();
    fs::copy(&file, other.path).unwrap();
    assert!(cache.decision("another").is_none());
}

#[test]
fn all_who_decide_at_once_go_by_one_decision() {
    let folder = Folder::new("at-once");
    for round in 0..20 {
        let about = format!("product {round}");
        let barrier = std::sync::Barrier::new(6);
        let counts: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|n| {
                    let (cache, about, barrier) = (folder.cache(), &about, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        cache.decide(about, &format!("way {n}")).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(counts.iter().all(|c| *c == counts[0]), "{counts:?}");
    }
}

#[test]
fn a_decision_that_cannot_be_kept_is_an_error() {
    let folder = Folder::new("no-decision");
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.0.join("decisions"), "a file in the folder's place").unwrap();
    assert!(folder.cache().decide("a product", "own").is_err());
}
