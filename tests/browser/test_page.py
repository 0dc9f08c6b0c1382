"""What the page promises, in a real browser against the real service."""

from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import ARTIFACTS
from tests.browser.page import Page
from tests.service import Client, launch

pytestmark = pytest.mark.browser


def ranked(client: Client, **caller: object) -> list[str]:
    """The list that the API itself gives."""
    answer = client.post("/recommend", json={"k": 10, **caller}).json()
    return [item["item_id"] for item in answer["items"]]


def test_page_shows_history_ranking_and_what_made_it(page: Page, client: Client) -> None:
    assert page.history == ["i13", "i8", "i3"]
    assert page.ranking == ranked(client, user_id="ann")
    first = client.get(f"/items/{page.ranking[0]}").json()["attributes"]
    row = page.find("#ranked li").text
    assert first["title"] in row
    assert str(first["year"]) in row
    assert first["genres"][0] in row
    assert page.fact("strategy") == "Model"
    assert page.fact("version") == client.get("/models").json()["live"]["model_version"]
    assert page.fact("length") == "3 events"
    assert page.fact("time").endswith(" ms")
    assert page.console_errors() == []


def test_item_that_the_model_has_not_learnt_is_shown_without_a_score(page: Page, client: Client) -> None:
    new = {"title": "Brand New", "year": 2026, "genres": ["Drama"]}
    assert client.put("/items/brand-new", json={"attributes": new}).status_code in (200, 201)
    page.press("#ranked li button")  # the next answer knows it
    assert page.ranking == ranked(client, user_id="ann")
    assert page.ranking[-1] == "brand-new"
    assert "new item" in page.find("#ranked li[data-item='brand-new']").text
    assert page.console_errors() == []


def test_click_posts_an_event_and_the_ranking_follows(page: Page, client: Client) -> None:
    before = page.ranking
    page.press(f"#ranked li[data-item='{before[2]}'] button")
    stored = [event["item_id"] for event in client.get("/users/ann").json()["history"]]
    assert stored == ["i3", "i8", "i13", before[2]]
    assert page.history == [before[2], "i13", "i8", "i3"]
    assert page.ranking == ranked(client, user_id="ann")
    assert page.ranking != before
    moves = {
        item: row.get_attribute("data-move")
        for item, row in zip(page.ranking, page.find_all("#ranked li"), strict=True)
    }
    expected = {item: move(before, item, rank) for rank, item in enumerate(page.ranking)}
    assert moves == expected
    assert page.said.startswith("Added ")
    assert page.console_errors() == []


def move(before: list[str], item: str, rank: int) -> str | None:
    if item not in before:
        return "new"
    places = before.index(item) - rank
    return "up" if places > 0 else "down" if places < 0 else None


def test_event_left_out_changes_the_ranking_but_not_the_store(page: Page, client: Client) -> None:
    with_all = page.ranking
    page.press("#history li[data-item='i13'] button")
    assert page.find("#what-if").is_displayed()
    assert "1 event is left out" in page.find("#what-if").text
    assert page.ranking == ranked(client, history=["i3", "i8"])
    assert page.ranking != with_all
    assert page.fact("length") == "2 events"
    assert len(client.get("/users/ann").json()["history"]) == 3
    page.press("#restore")
    assert not page.find("#what-if").is_displayed()
    assert page.ranking == with_all
    assert page.console_errors() == []


def test_pasted_list_is_ranked_without_being_stored(page: Page, client: Client) -> None:
    titles = {item: client.get(f"/items/{item}").json()["attributes"] for item in ("i5", "i2")}
    lines = [titles["i5"]["title"].upper(), "No Such Film", f"{titles['i2']['title']} ({titles['i2']['year']})"]
    page.find("#paste").click()
    page.find("#paste-text").send_keys("\n".join(lines))
    page.find("#paste-go").click()
    page.wait_for("#notices .notice")
    page.wait_until_settled()
    assert page.history == ["i2", "i5"]
    assert page.ranking == ranked(client, history=["i5", "i2"])
    assert "“No Such Film”" in page.find("#notices").text
    chosen = page.ranking[1]
    page.press(f"#ranked li[data-item='{chosen}'] button")
    assert page.history == [chosen, "i2", "i5"]
    assert page.ranking == ranked(client, history=["i5", "i2", chosen])
    assert client.get("/users/ann").json()["history_length"] == 3
    assert page.console_errors() == []


def test_invented_user_gets_popular_items_until_the_first_event(page: Page) -> None:
    page.press("#invent")
    assert page.fact("strategy") == "Popularity"
    assert page.history == []
    page.press("#ranked li:first-child button")
    assert page.fact("strategy") == "Model"
    assert len(page.history) == 1
    assert page.console_errors() == []


def test_title_is_found_and_added_with_the_keyboard_alone(page: Page, client: Client) -> None:
    box = page.find("#search-box")
    box.send_keys("the silent orch")
    page.wait_for("#search-list [role='option']")
    box.send_keys(Keys.ARROW_DOWN)
    assert box.get_attribute("aria-activedescendant") == "found-0"
    box.send_keys(Keys.ENTER)
    page.wait_for("#history li[data-item='i2']")
    page.wait_until_settled()
    assert page.history == ["i2", "i13", "i8", "i3"]
    assert page.ranking == ranked(client, user_id="ann")


def test_stopped_service_is_explained_and_nothing_shown_is_lost(page: Page, client: Client) -> None:
    before = page.ranking
    client.service.stop()
    page.find("#ranked li button").click()
    problem = page.wait_for("#problem .problem")
    page.wait_until_settled()
    assert "does not answer" in problem.text
    assert page.find("#service").text == "Not reachable"
    assert page.find("#retry").is_enabled()
    assert page.ranking == before
    assert page.history == ["i13", "i8", "i3"]


def test_try_again_posts_the_same_event_once_after_a_restart(page: Page, client: Client, tmp_path: Path) -> None:
    client.service.stop()
    page.find("#ranked li button").click()
    page.wait_for("#problem .problem")
    page.wait_until_settled()
    again = launch(tmp_path, artifacts_dir=ARTIFACTS, port=client.base_url.port)
    try:
        again.wait_for_address()
        page.press("#retry")
        assert page.find_all("#problem .problem") == []
        assert client.get("/users/ann").json()["history_length"] == 4
        assert page.ranking == ranked(client, user_id="ann")
    finally:
        again.stop()


def test_page_fits_a_phone(page: Page) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        width = page.chromium.execute_script("return document.documentElement.scrollWidth")
        buttons = page.chromium.find_elements(By.CSS_SELECTOR, "#ranked li button, .chip, #history button")
        assert width == 390
        assert all(button.size["height"] >= 32 for button in buttons)
    finally:
        page.chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
