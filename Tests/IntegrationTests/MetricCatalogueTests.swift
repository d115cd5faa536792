import TestSupport
import Testing

/// What `/metrics` of a running server defines.
///
/// An upload must have been slow for 30 s before it gives way: the script does everything else meanwhile.
@Suite(.timeLimit(.minutes(30)))
struct MetricCatalogueTests {
    @Test(.slow) func everyMetricMovesWithWhatItMeasures() throws {
        try PythonScript.expectSuccess("metrics.py", [])
    }
}
