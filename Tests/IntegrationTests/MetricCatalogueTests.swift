import Testing

/// What `/metrics` of a running server defines.
@Suite(.timeLimit(.minutes(1)))
struct MetricCatalogueTests {
    @Test func everyMetricMovesWithWhatItMeasures() throws {
        try PythonScript.expectSuccess("metrics.py", [])
    }
}
