//! The warning of a stall through `tracing`. In a process of its own: another thread without a
//! subscriber that comes to the same warning first would have it disabled for all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flagstone_epoch::Domain;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// The warning goes through `tracing`, with the fields that name the holder.
#[test]
fn a_stall_warns_through_tracing() {
    #[derive(Clone, Default)]
    struct Capture(Arc<Mutex<Vec<String>>>);
    struct Fields(Vec<String>);
    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.push(format!("{}={value:?}", field.name()));
        }
    }
    impl Subscriber for Capture {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut fields = Fields(Vec::new());
            event.record(&mut fields);
            self.0.lock().expect("no panic").push(fields.0.join(" "));
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    let capture = Capture::default();
    tracing::subscriber::with_default(capture.clone(), || {
        let domain = Domain::builder()
            .name("watched")
            .stall_after(Duration::ZERO)
            .build()
            .expect("in range");
        let participant = domain.register();
        let _guard = participant.pin();
        assert_eq!(domain.check_stalls(), 1);
        assert_eq!(domain.check_stalls(), 0);
    });
    let warnings = capture.0.lock().expect("no panic");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in
        ["domain=\"watched\"", "thread=\"a_stall_warns_through_tracing\"", "stall_warning.rs:"]
    {
        assert!(warnings[0].contains(part), "{part} in {}", warnings[0]);
    }
}
