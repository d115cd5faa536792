import TestSupport
import Testing

/// The pages in a real browser, against a real server; each scenario says in its script what it expects.
@Suite(
    .timeLimit(.minutes(30)),
    .serialized,
    .enabled(if: PythonScript.chromium != nil, "no Chromium here: install it to test the pages")
)
struct DashboardTests {
    @Test(
        .slow,
        arguments: [
            "life_of_a_run", "the_server_dies_and_comes_back", "a_server_that_is_starting", "tokens_and_roles",
            "an_expired_token_at_a_button", "a_server_without_tokens", "unknown_runs_and_trouble", "two_languages",
            "accessible_in_both_themes", "a_long_run_stays_small", "terms_of_private_runs",
            "words_of_an_analytics_run", "a_failing_disk",
        ]
    )
    func thePageInABrowser(_ scenario: String) throws {
        try PythonScript.expectSuccess("dashboard.py", [scenario])
    }
}
