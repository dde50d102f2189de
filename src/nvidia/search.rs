//! Where users have NVIDIA's libraries: the order of folders, from the most explicit wish to the most general place.
//!
//! It reads directory listings and opens nothing. The environment is read above and handed in.

use std::path::{Path, PathBuf};

/// What was said about where the libraries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// A folder or library file named by the user; tried first.
    pub explicit: Option<PathBuf>,
    /// `CUDA_HOME` or `CUDA_PATH`.
    pub cuda_home: Option<PathBuf>,
    /// `VIRTUAL_ENV`.
    pub virtual_env: Option<PathBuf>,
    /// `CONDA_PREFIX`.
    pub conda_prefix: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// Where the file system begins; tests bring their own.
    pub root: PathBuf,
    /// Whether the loader is asked by name; it knows no other root.
    pub by_loader: bool,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            explicit: None,
            cuda_home: None,
            virtual_env: None,
            conda_prefix: None,
            home: None,
            root: PathBuf::from("/"),
            by_loader: true,
        }
    }
}

/// A place to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By name: the loader path, its cache, the run path.
    Loader,
    /// A folder.
    Folder(PathBuf),
}

/// Which family of libraries: the driver's come with the driver, the toolkit's with a toolkit or from pip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// libcuda and NVML.
    Driver,
    /// NVRTC and cuBLASLt.
    Toolkit,
}

/// Folders of the driver's libraries beyond the loader's own, in distributions, containers and WSL.
const DRIVER_FOLDERS: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "usr/lib/wsl/lib",
    "run/opengl-driver/lib",
];
/// Folders of a toolkit below its home.
const TOOLKIT_FOLDERS: &[&str] = &["lib64", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "lib"];
/// Roots of Python installations that are not a virtual environment.
const PYTHON_ROOTS: &[&str] = &["usr/local/lib", "usr/lib"];

impl Search {
    /// Where to look, in order, each place once.
    #[must_use]
    pub fn places(&self, origin: Origin) -> Vec<Place> {
        let mut folders = Vec::new();
        folders.extend(self.explicit.as_deref().map(folder_of));
        if origin == Origin::Toolkit {
            folders.extend(self.cuda_home.iter().flat_map(|home| below(home, TOOLKIT_FOLDERS)));
        }
        let mut places: Vec<_> = folders.into_iter().map(Place::Folder).collect();
        places.extend(self.by_loader.then_some(Place::Loader));
        let general = match origin {
            Origin::Driver => below(&self.root, DRIVER_FOLDERS),
            Origin::Toolkit => [self.toolkits(), self.python()].concat(),
        };
        places.extend(general.into_iter().map(Place::Folder));
        let mut once = Vec::new();
        for place in places {
            if !once.contains(&place) {
                once.push(place);
            }
        }
        once
    }

    /// `/usr/local/cuda` and its versioned neighbours, newest first.
    fn toolkits(&self) -> Vec<PathBuf> {
        let mut homes = entries(&self.root.join("usr/local"), |name| name.starts_with("cuda"));
        homes.sort();
        homes.reverse();
        homes.iter().flat_map(|home| below(home, TOOLKIT_FOLDERS)).collect()
    }

    /// Folders of pip's and conda's packages.
    fn python(&self) -> Vec<PathBuf> {
        let environments = [&self.virtual_env, &self.conda_prefix].into_iter().flatten();
        let mut folders: Vec<_> = environments.clone().map(|prefix| prefix.join("lib")).collect();
        let user = self.home.iter().map(|home| home.join(".local/lib"));
        let roots = environments.map(|prefix| prefix.join("lib")).chain(user).chain(below(&self.root, PYTHON_ROOTS));
        for root in roots {
            for python in entries(&root, |name| name.starts_with("python3")) {
                for packages in ["site-packages", "dist-packages"] {
                    // One folder per component (`nvidia/cuda_nvrtc/lib`), or one for all of them (`nvidia/cu13/lib`).
                    folders.extend(
                        entries(&python.join(packages).join("nvidia"), |_| true).into_iter().map(|component| component.join("lib")),
                    );
                }
            }
        }
        folders.retain(|folder| folder.is_dir());
        folders
    }
}

/// The folder that an explicit path means.
fn folder_of(path: &Path) -> PathBuf {
    if path.is_file() { path.parent().unwrap_or(path).to_owned() } else { path.to_owned() }
}

fn below(root: &Path, folders: &[&str]) -> Vec<PathBuf> {
    folders.iter().map(|folder| root.join(folder)).collect()
}

/// Entries of a folder whose name is wanted; none where it cannot be read.
fn entries(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(listing) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> =
        listing.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(&wanted)).map(|entry| entry.path()).collect();
    found.sort();
    found
}
