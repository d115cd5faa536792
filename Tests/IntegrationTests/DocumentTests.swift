import TestSupport
import Testing

/// What the documents say, tried as a reader would.
@Suite(.timeLimit(.minutes(30)))
struct DocumentTests {
    @Test(.slow) func everyCurlLineOfTheReferenceRuns() throws {
        try PythonScript.expectSuccess("reference.py", [])
    }

    @Test(.slow) func everyCommandOfTheDocumentsRuns() throws {
        try PythonScript.expectSuccess("documents.py", [])
    }

    @Test func linksBetweenDocumentsLeadSomewhere() throws {
        try PythonScript.expectSuccess("documents.py", ["links"])
    }
}
