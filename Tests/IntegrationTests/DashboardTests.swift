import Testing

/// The pages in a real browser, against a real server; each scenario says in its script what it expects.
@Suite(
    .timeLimit(.minutes(3)),
    .serialized,
    .enabled(if: PythonScript.chromium != nil, "no Chromium here: install it to test the pages")
)
struct DashboardTests {
    @Test(arguments: [
        "life_of_a_run", "the_server_dies_and_comes_back", "tokens_and_roles", "a_server_without_tokens",
        "unknown_runs_and_trouble",
        "two_languages", "accessible_in_both_themes",
    ])
    func thePageInABrowser(_ scenario: String) throws {
        try PythonScript.expectSuccess("dashboard.py", [scenario])
    }
}
