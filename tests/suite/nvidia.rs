//! NVIDIA's libraries: where they are looked for, which symbols they must have, and what is said where they are not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plimsoll::nvidia::search::{Origin, Place, Search};
use plimsoll::nvidia::symbols;

use crate::support::{plimsoll, stderr, stdout};

fn folders(places: &[Place]) -> Vec<String> {
    let shown = |place: &Place| match place {
        Place::Loader => "loader".to_owned(),
        Place::Folder(folder) => folder.display().to_string(),
    };
    places.iter().map(shown).collect()
}

#[test]
fn toolkit_libraries_are_looked_for_from_the_users_word_to_the_most_general_place() {
    let root = tempfile::tempdir().unwrap();
    let made = |path: &str| {
        let folder = root.path().join(path);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let explicit = made("mine");
    made("usr/local/cuda-12.4/lib64");
    made("usr/local/cuda-13.0/lib64");
    let virtual_env = made("venv");
    made("venv/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib");
    made("venv/lib/python3.12/site-packages/nvidia/cu13/lib");
    let conda = made("conda");
    made("conda/lib");
    let search = Search {
        explicit: Some(explicit),
        cuda_home: Some(PathBuf::from("/opt/cuda")),
        virtual_env: Some(virtual_env),
        conda_prefix: Some(conda),
        home: None,
        root: root.path().to_owned(),
        by_loader: true,
    };
    let found = folders(&search.places(Origin::Toolkit));
    let order =
        ["/mine", "/opt/cuda/lib64", "loader", "cuda-13.0/lib64", "cuda-12.4/lib64", "conda/lib", "nvidia/cu13/lib", "cuda_nvrtc/lib"];
    let at = order.map(|end| found.iter().position(|place| place.ends_with(end)).unwrap_or_else(|| panic!("`{end}` is in {found:?}")));
    assert!(at.is_sorted(), "{found:?}");
    let driver = folders(&search.places(Origin::Driver));
    assert!(
        driver[0].ends_with("/mine") && driver[1] == "loader" && driver.iter().any(|place| place.ends_with("usr/lib/wsl/lib")),
        "{driver:?}"
    );
}

#[test]
fn a_file_that_was_named_means_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("libnvrtc.so.12");
    std::fs::write(&file, "").unwrap();
    let search = Search { explicit: Some(file), ..Search::default() };
    assert_eq!(search.places(Origin::Toolkit)[0], Place::Folder(root.path().to_owned()));
}

/// Names in `text` that begin with `prefix` and are called.
fn called(text: &str, prefix: &str) -> BTreeSet<String> {
    let path = format!("sys::{prefix}");
    let begins = text.match_indices(&path).map(|(at, _)| &text[at + "sys::".len()..]);
    let name = |rest: &str| rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect::<String>();
    let with_end = begins.map(|rest| (name(rest), rest));
    let is_call = |(name, rest): &(String, &str)| rest[name.len()..].starts_with('(') || rest[name.len()..].starts_with(')');
    with_end.filter(is_call).map(|(name, _)| name).collect()
}

#[test]
fn every_symbol_that_is_called_is_checked_when_its_library_is_opened() {
    let mut text = String::new();
    let mut folders = ["src/nvidia", "src/device/cuda"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    for (prefix, checked) in [("cu", symbols::DRIVER), ("nvrtc", symbols::NVRTC), ("cublasLt", symbols::CUBLASLT)] {
        let mut called = called(&text, prefix);
        called.retain(|name| prefix != "cu" || (!name.starts_with("cublas") && name.chars().nth(2).is_some_and(char::is_uppercase)));
        let checked: BTreeSet<_> = checked.iter().map(|name| (*name).to_owned()).collect();
        assert!(!called.is_empty());
        assert_eq!(called, checked, "of `{prefix}...`");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_refused_with_what_was_looked_for_and_the_cpu_still_computes() {
    let generate = |device: &[&str]| {
        let mut command = plimsoll();
        command.args(["generate", "--model", "llama-5m", "--prompt-ids", "1,2", "--max-new-tokens", "2"]).args(device);
        // Empty: no GPU, whatever the machine has.
        command.env("CUDA_VISIBLE_DEVICES", "").output().unwrap()
    };
    let refused = generate(&["--device", "cuda:0"]);
    assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
    let said = stderr(&refused);
    assert!(said.contains("cannot compute on a GPU") && said.contains("the CUDA driver cannot be used"), "{said}");
    assert!(said.contains("libcuda.so.1") || said.contains("CUDA_VISIBLE_DEVICES"), "{said}");
    for device in [&["--device", "cpu"][..], &[]] {
        let computed = generate(device);
        assert_eq!(computed.status.code(), Some(0), "{}", stderr(&computed));
        assert!(!stdout(&computed).is_empty());
    }
    let misspelt = generate(&["--device", "gpu"]);
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(stderr(&misspelt).contains("cuda:0"));
}
