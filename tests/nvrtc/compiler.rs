//! NVRTC by its own names. Not through cudarc: that holds one library a process, and here are several versions.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

use super::Sources;

type Program = *mut c_void;
type Create = unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

/// One version of NVRTC. Its functions may be called from several threads.
pub(super) struct Compiler {
    version: String,
    architectures: Vec<c_int>,
    create: Create,
    compile: Compile,
    log: (Size, Text),
    ptx: (Size, Text),
    destroy: Destroy,
}

/// What came of a compilation.
pub(super) struct Compiled {
    /// What compiler and assembler said.
    pub(super) log: String,
    /// The intermediate code.
    pub(super) ptx: String,
}

/// The file of `folder` whose name starts so.
fn file(folder: &Path, start: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    found.sort();
    found.into_iter().next()
}

fn strings<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<CString> {
    texts.into_iter().map(|text| CString::new(text.as_str()).unwrap()).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

impl Compiler {
    /// The one in `folder`, if there is one.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        let path = file(folder, "libnvrtc.so.")?;
        // SAFETY: loading NVIDIA's libraries runs their own initialisers; the files are those that `.ci/nvrtc` has checked.
        let library = unsafe {
            // 13.0 looks for this one by its name alone, and finds it where it is loaded already.
            if let Some(builtins) = file(folder, "libnvrtc-builtins.so") {
                std::mem::forget(Library::open(Some(builtins), RTLD_NOW | RTLD_GLOBAL).unwrap());
            }
            Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        // It stays loaded for as long as the process: the functions below need it.
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: the names have these types in nvrtc.h, unchanged from 12.1 to 13.0.
        unsafe {
            let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = *library.get(b"nvrtcVersion\0").unwrap();
            let count: unsafe extern "C" fn(*mut c_int) -> c_int = *library.get(b"nvrtcGetNumSupportedArchs\0").unwrap();
            let list: unsafe extern "C" fn(*mut c_int) -> c_int = *library.get(b"nvrtcGetSupportedArchs\0").unwrap();
            let (mut major, mut minor, mut known) = (0, 0, 0);
            assert_eq!((version(&raw mut major, &raw mut minor), count(&raw mut known)), (0, 0));
            let mut architectures = vec![0; usize::try_from(known).unwrap()];
            assert_eq!(list(architectures.as_mut_ptr()), 0);
            Some(Self {
                version: format!("{major}.{minor}"),
                architectures,
                create: *library.get(b"nvrtcCreateProgram\0").unwrap(),
                compile: *library.get(b"nvrtcCompileProgram\0").unwrap(),
                log: (*library.get(b"nvrtcGetProgramLogSize\0").unwrap(), *library.get(b"nvrtcGetProgramLog\0").unwrap()),
                ptx: (*library.get(b"nvrtcGetPTXSize\0").unwrap(), *library.get(b"nvrtcGetPTX\0").unwrap()),
                destroy: *library.get(b"nvrtcDestroyProgram\0").unwrap(),
            })
        }
    }

    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Whether it compiles for `architecture`, such as `90a`.
    pub(super) fn knows(&self, architecture: &str) -> bool {
        self.architectures.contains(&architecture.trim_end_matches('a').parse().unwrap())
    }

    /// Compiles `text`, with `headers` under the names they are included by.
    pub(super) fn compile(&self, name: &str, text: &str, headers: &Sources, options: &[String]) -> Result<Compiled, String> {
        let (name, text) = (CString::new(name).unwrap(), CString::new(text).unwrap());
        let (names, texts, options) = (strings(headers.keys()), strings(headers.values()), strings(options));
        let mut program = null_mut();
        // SAFETY: every pointer is to a string or an array of them that outlives the call, and counts are theirs.
        unsafe {
            let count = c_int::try_from(names.len()).unwrap();
            let (texts, names) = (pointers(&texts), pointers(&names));
            let created = (self.create)(&raw mut program, text.as_ptr(), name.as_ptr(), count, texts.as_ptr(), names.as_ptr());
            assert_eq!(created, 0, "a program is made of any text");
            let options = pointers(&options);
            let status = (self.compile)(program, c_int::try_from(options.len()).unwrap(), options.as_ptr());
            let log = read(program, self.log);
            let result = if status == 0 { Ok(Compiled { log, ptx: read(program, self.ptx) }) } else { Err(log) };
            (self.destroy)(&raw mut program);
            result
        }
    }
}

/// A text of a program, whose size comes first.
///
/// # Safety
/// `program` is one of the library that the functions are from.
unsafe fn read(program: Program, (size, text): (Size, Text)) -> String {
    let mut bytes = 0;
    // SAFETY: the buffer is as large as the library says, the zero at the end included.
    unsafe {
        assert_eq!(size(program, &raw mut bytes), 0);
        let mut buffer = vec![0_u8; bytes.max(1)];
        assert_eq!(text(program, buffer.as_mut_ptr().cast()), 0);
        CStr::from_bytes_until_nul(&buffer).unwrap().to_string_lossy().into_owned()
    }
}
