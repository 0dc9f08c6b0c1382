"""The page as a person sees it: what is shown, what can be pressed."""

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 15


class Page:
    def __init__(self, chromium: webdriver.Chrome) -> None:
        self.chromium = chromium

    def find(self, selector: str) -> WebElement:
        return self.chromium.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        return self.chromium.find_elements(By.CSS_SELECTOR, selector)

    def items(self, selector: str) -> list[str]:
        """Item ids of the rows under `selector`, from top to bottom; read in one step, between two drawings."""
        script = "return [...document.querySelectorAll(arguments[0] + ' li[data-item]')].map(row => row.dataset.item)"
        return list(self.chromium.execute_script(script, selector))

    @property
    def ranking(self) -> list[str]:
        return self.items("#ranked")

    @property
    def history(self) -> list[str]:
        """Newest first, left out events included."""
        return self.items("#history")

    @property
    def said(self) -> str:
        """The last sentence for people who listen."""
        return str(self.find("#live").get_attribute("textContent"))

    def fact(self, name: str) -> str:
        return self.find(f"#fact-{name} dd").text

    def press(self, selector: str) -> None:
        self.find(selector).click()
        self.wait_until_settled()

    def wait_until_settled(self) -> None:
        """Everything asked for has been answered and drawn."""
        busy = "return document.querySelector('#ranking').getAttribute('aria-busy')"
        WebDriverWait(self.chromium, SECONDS).until(lambda driver: driver.execute_script(busy) == "false")

    def wait_for(self, selector: str) -> WebElement:
        return WebDriverWait(self.chromium, SECONDS).until(
            lambda _: next((found for found in self.find_all(selector) if found.is_displayed()), False)
        )

    def console_errors(self) -> list[str]:
        return [entry["message"] for entry in self.chromium.get_log("browser") if entry["level"] == "SEVERE"]
