"""The page's figures are those of the kept results."""

from chaos.report import PAGE, results, with_figures


def test_the_page_shows_the_kept_results() -> None:
    page = PAGE.read_text("utf-8")
    assert page == with_figures(page, results())
    assert all(not run["violations"] for run in results())
