//! The rules. Each looks at one file and tells what breaks it.

use crate::text::{Source, is_word, line_of, places_of};

/// A broken rule.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) rule: String,
}

fn violation(source: &Source, line: usize, rule: impl Into<String>) -> Violation {
    Violation { path: source.path.clone(), line, rule: rule.into() }
}

/// Rooms by floor. A room that is not here has no place yet.
const FLOORS: &[(&[&str], u32)] = &[
    (&["clock", "rng", "stats", "table", "units"], 0),
    (&["workload"], 1),
    (&["queueing", "record"], 2),
    (&["curve", "http", "model", "nvidia"], 3),
    (&["capacity", "device", "telemetry"], 4),
    (&["engine", "interchange", "node", "report", "store"], 5),
    (&["doctor", "target"], 6),
    (&["load", "serve"], 7),
    (&["campaign"], 8),
    (&["cli"], 10),
];
const MEASURING: &[&str] = &["nvidia", "http", "device", "telemetry", "engine", "node", "doctor", "target", "load", "serve"];
const JUDGING: &[&str] = &["curve", "capacity", "report", "store", "interchange"];
const PURE: &[&str] = &["units", "stats", "workload", "record", "queueing", "curve", "capacity"];
/// What a pure room may not name.
const IMPURE: &[&str] =
    &["std::fs", "std::env", "std::net", "std::process", "std::thread", "Instant", "SystemTime", "tokio", "async", ".await", "File::"];
/// Where `unsafe` may stand: SIMD and prefetches, the lifetime of a job shared with the device's threads, mapped weights, NVIDIA's
/// libraries (NVML where its wrapper has no call or gives handles to compare), the token ring.
const UNSAFE: &[&str] = &[
    "src/device/cpu/ceilings.rs",
    "src/device/cpu/matmul",
    "src/device/cpu/threads.rs",
    "src/device/cuda/",
    "src/model/safetensors.rs",
    "src/model/weights",
    "src/nvidia/",
    "src/target/sink.rs",
    "src/telemetry/nvml/",
];
const NAMELESS: &[&str] =
    &["utils", "util", "common", "helper", "helpers", "manager", "handler", "backend", "executor", "worker", "misc", "context"];
/// One door each: what is named only there.
const DOORS: &[(&str, &str)] = &[
    ("Instant::now", "src/clock.rs"),
    ("SystemTime::now", "src/clock.rs"),
    ("Timestamp::now", "src/clock.rs"),
    ("rand::rng", "src/rng.rs"),
    ("env::var", "src/cli/"),
    ("env::var_os", "src/cli/"),
    ("env::args", "src/cli/"),
    ("env::args_os", "src/main.rs"),
    ("File::create", "src/store/"),
    ("File::options", "src/store/"),
    ("OpenOptions", "src/store/"),
    ("fs::rename", "src/store/"),
    ("fs::remove_file", "src/store/"),
    ("fs::create_dir_all", "src/store/"),
    ("fs::write", "src/store/"),
    // Scratch of a sort, without a name: no final file, so it needs no door of those.
    ("tempfile", "src/table/sorted.rs"),
    ("println!", "src/cli/"),
    ("print!", "src/cli/"),
    ("eprintln!", "nowhere"),
    ("eprint!", "nowhere"),
    ("dbg!", "nowhere"),
];
const LINES_TO_WARN_AT: usize = 400;
const LINES_AT_MOST: usize = 420;

fn floor_of(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(rooms, _)| rooms.contains(&room)).map(|(_, floor)| *floor)
}

/// A room uses rooms of lower floors only, and the wings do not name each other.
pub(crate) fn floors(source: &Source) -> Vec<Violation> {
    let Some(room) = source.room() else { return Vec::new() };
    let Some(floor) = floor_of(room) else {
        return vec![violation(source, 1, format!("room `{room}` has no floor in tests/tidy/rules.rs"))];
    };
    let code = source.code();
    let judge = |(line, used): (usize, String)| {
        if used == room {
            return None;
        }
        let rule = match floor_of(&used) {
            None => format!("`crate::{used}` is no room: import by module path"),
            Some(other) if other > floor => format!("`{room}` (floor {floor}) uses `{used}` (floor {other}), which is above it"),
            Some(other) if other == floor => format!("`{room}` uses `{used}`, its neighbour on floor {floor}"),
            Some(_) if MEASURING.contains(&room) && JUDGING.contains(&used.as_str()) => {
                format!("`{room}` measures and may not name `{used}`, which judges")
            }
            Some(_) if JUDGING.contains(&room) && MEASURING.contains(&used.as_str()) => {
                format!("`{room}` judges and may not name `{used}`, which measures")
            }
            Some(_) => return None,
        };
        Some(violation(source, line, rule))
    };
    let mut found = used_rooms(&code).into_iter().filter_map(judge).collect::<Vec<_>>();
    found.extend(escapes(source, &code));
    found
}

/// Rooms named through `crate::`, also inside a group.
fn used_rooms(code: &str) -> Vec<(usize, String)> {
    let mut used = Vec::new();
    for at in places_of(code, "crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(first_names(group).into_iter().map(|(offset, name)| {
                let start = at + "crate::{".len() + offset;
                (line_of(code, start), name)
            })),
            None => used.push((line_of(code, at), name_at(rest))),
        }
    }
    used.retain(|(_, name)| !name.is_empty());
    used
}

/// The first name of each item of a `use` group, up to its closing brace.
fn first_names(group: &str) -> Vec<(usize, String)> {
    let (mut depth, mut expects_name, mut names) = (0_u32, true, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects_name = true,
            _ if expects_name && depth == 0 && !letter.is_whitespace() => {
                names.push((at, name_at(&group[at..])));
                expects_name = false;
            }
            _ => {}
        }
    }
    names
}

fn name_at(text: &str) -> String {
    text.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect()
}

/// `super::` may not climb out of the room, past the eyes of this check.
fn escapes(source: &Source, code: &str) -> Vec<Violation> {
    let inside = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = inside.split('/').count();
    let tests_from = code.find("#[cfg(test)]").unwrap_or(code.len());
    let chains = places_of(code, "super::").filter(|at| !code[..*at].ends_with("super::"));
    let escaping = chains.filter(|at| {
        let length = code[*at..].split("super::").take_while(|part| part.is_empty()).count();
        length > depth || (length == depth && *at < tests_from)
    });
    escaping.map(|at| violation(source, line_of(code, at), "`super::` leaves the room: name the other one through `crate::`")).collect()
}

/// What only one place may do is done there.
pub(crate) fn doors(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let code = source.product_code();
    let broken = DOORS.iter().filter(|(_, door)| !source.path.starts_with(door));
    let found = broken.flat_map(|(name, door)| places_of(&code, name).map(move |at| (at, name, door)));
    found.map(|(at, name, door)| violation(source, line_of(&code, at), format!("`{name}` is for `{door}` alone"))).collect()
}

/// The rooms that must be testable with nothing but their arguments.
pub(crate) fn purity(source: &Source) -> Vec<Violation> {
    let Some(room) = source.room().filter(|room| PURE.contains(room)) else { return Vec::new() };
    let code = source.product_code();
    let mut found = Vec::new();
    for name in IMPURE {
        let tell = |at| violation(source, line_of(&code, at), format!("`{room}` is pure and may not name `{name}`"));
        found.extend(places_of(&code, name).map(tell));
    }
    let clocks = places_of(&code, "crate::clock::").filter(|at| {
        let rest = code[at + "crate::clock::".len()..].trim_start_matches('{');
        name_at(rest) != "Nanos"
    });
    found.extend(clocks.map(|at| violation(source, line_of(&code, at), format!("`{room}` is pure and knows only `clock::Nanos`"))));
    found
}

/// `unsafe` stands where it is expected, and nowhere else; conditional compilation likewise.
pub(crate) fn unsafe_and_cfg(source: &Source) -> Vec<Violation> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let code = source.code();
    let mut found = Vec::new();
    if !UNSAFE.iter().any(|place| source.path.starts_with(place)) {
        found.extend(places_of(&code, "unsafe").map(|at| violation(source, line_of(&code, at), "`unsafe` outside its census")));
    }
    if !source.path.starts_with("src/device/cpu/") {
        let conditions = places_of(&code, "cfg(").filter(|at| !code[*at..].starts_with("cfg(test)"));
        found.extend(conditions.map(|at| violation(source, line_of(&code, at), "`cfg` other than `cfg(test)`")));
    }
    found
}

/// No bare `allow`, anywhere.
pub(crate) fn no_allow(source: &Source) -> Vec<Violation> {
    let code = source.code();
    let places = ["#[allow(", "#![allow("].into_iter().flat_map(|attribute| places_of(&code, attribute).collect::<Vec<_>>());
    places.map(|at| violation(source, line_of(&code, at), "`allow`: use `#[expect(..., reason = \"...\")]`")).collect()
}

/// What a module has is reached by that module's path: nothing is exported twice.
pub(crate) fn no_second_path(source: &Source) -> Vec<Violation> {
    let code = source.product_code();
    places_of(&code, "pub use").map(|at| violation(source, line_of(&code, at), "`pub use`: import by module path")).collect()
}

/// Names say what a thing is.
pub(crate) fn names(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let segments = source.path.split(['/', '.', '_']);
    found.extend(segments.filter(|part| NAMELESS.contains(part)).map(|part| violation(source, 1, format!("`{part}` names nothing"))));
    let code = source.product_code();
    for keyword in ["struct", "enum", "trait", "mod", "fn", "type", "const", "static"] {
        for at in places_of(&code, keyword) {
            let name = name_at(code[at + keyword.len()..].trim_start());
            // The length of a model's context is a quantity, and CUDA's contexts are called so; any other type would be a bag.
            let is_cuda = source.path.starts_with("src/device/cuda/");
            let is_type = ["struct", "enum", "trait", "mod", "type"].contains(&keyword) && !is_cuda;
            let nameless = |word: &String| NAMELESS.contains(&word.as_str()) && (is_type || word != "context");
            if let Some(word) = words_of(&name).into_iter().find(nameless) {
                found.push(violation(source, line_of(&code, at), format!("`{name}`: `{word}` names nothing")));
            }
        }
    }
    found
}

/// `KvBlock_pool` as `kv block pool`.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter != '_') {
            word.extend(letter.to_lowercase());
        }
    }
    words
}

/// A file that must be scrolled for long is two files.
pub(crate) fn size(source: &Source) -> Vec<Violation> {
    let lines = source.text.lines().count();
    if lines > LINES_TO_WARN_AT {
        #[expect(clippy::print_stdout, reason = "a warning of a test")]
        {
            println!("{}: {lines} lines; {LINES_AT_MOST} at most", source.path);
        }
    }
    let too_long = lines > LINES_AT_MOST;
    too_long.then(|| violation(source, lines, format!("{lines} lines, {LINES_AT_MOST} at most: split by concept"))).into_iter().collect()
}

/// A file says what it is for.
pub(crate) fn opening(source: &Source) -> Vec<Violation> {
    let opens = source.text.starts_with("//! ");
    let built = !source.text.contains(&["(to be ", "built)"].concat());
    let mut found = Vec::new();
    found.extend((!opens).then(|| violation(source, 1, "opens without `//!`: say what it is for")));
    found.extend((!built).then(|| violation(source, 1, "is still to be built")));
    found
}

/// The project speaks of itself only.
pub(crate) fn words(source: &Source) -> Vec<Violation> {
    // Spelled so that this file does not break its own rule.
    let banned = [["/wo", "rk/"], ["work", "tree"], ["sub", "agent"], ["cl", "aude"], ["lan", "guage model wrote"], ["issue", " #"]]
        .map(|halves| halves.concat());
    let text = source.text.to_lowercase();
    let found = banned.iter().flat_map(|word| text.match_indices(word.as_str()).map(move |(at, _)| (at, word)));
    found.map(|(at, word)| violation(source, line_of(&text, at), format!("`{word}` has no place in the project's text"))).collect()
}
